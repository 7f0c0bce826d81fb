// Stands in for libcuda.so: the handle of an executable graph is the address of a function void(void). A launch only
// queues it, the wait for the stream runs it. What happened is counted for the test.
static void (*queued)(void);
static int has_context, fails_with;
int launches, waits, retained;

void fail_next(int status) { fails_with = status; }
static int status(void) {
  const int now = fails_with;
  fails_with = 0;
  return now;
}

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGet(int* device, int index) {
  *device = index + 40;
  return index < 2 ? 0 : 101;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  retained += device;
  *context = &retained;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  retained -= device;
  return 0;
}
int cuCtxSetCurrent(void* context) {
  has_context = context == &retained;
  return 0;
}
int cuGraphLaunch(void* executable, void* stream) {
  if (!has_context) return 201;
  queued = (void (*)(void))executable;
  ++launches;
  return status();
}
int cuStreamSynchronize(void* stream) {
  ++waits;
  if (queued) queued();
  queued = 0;
  return 0;
}
int cuGetErrorString(int error, const char** text) {
  *text = error == 101 ? "invalid device ordinal" : error == 700 ? "an illegal memory access was encountered" : "other";
  return 0;
}

// A graph without Python: the first byte of the frame plus the state, into three actions of two numbers.
unsigned char frame[2 * 4 * 5 * 3];
float state[2 * 3], action[3 * 2];
void graph(void) {
  for (int i = 0; i < 6; ++i) action[i] = (float)frame[0] + 10.0f * (float)frame[4 * 5 * 3] + state[i];
}
