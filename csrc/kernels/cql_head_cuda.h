// cql_head on CUDA GPUs (csrc/kernels/cql_head.cu). Sizes and strides in elements; pointers are of the device.
#pragma once
#include <cstdint>
#include <vector>

namespace ptr_fast {

enum class CqlHeadProducts { kTf32, kBf16 };

// Layer i of a head; the last one has width 1. Rows of weights are dense.
struct CqlHeadCudaLayer {
  int width;
  const float* term;              // element (e, b, n) at e * term_head + b * term_state + n
  int64_t term_head, term_state;  // term_state 0 where all states share it
  const float* action;            // [E, A, width] or null
  int64_t action_head;
  const float* hidden;  // [E, width of the layer before, width]; null in the first layer
  int64_t hidden_head;
  float *h, *d;  // [E, num_rows, width] of a hidden layer, or null; backward pass only
};

// What both passes see. ``packed``: [E, cql_head_packed_words] words, aligned to 16 bytes.
struct CqlHeadCudaCall {
  CqlHeadProducts products;
  int64_t E, B, K, A;
  std::vector<CqlHeadCudaLayer> layers;
  const float* actions;     // [B, K, A]
  const float* log_weight;  // [B, K] or null
  uint32_t* packed;
};

struct CqlHeadCudaForward : CqlHeadCudaCall {
  bool with_back;  // pack what the backward pass needs, too
  float* q;        // [E, B, K]
  float* lse;      // [E, B], null like log_weight
};

// Of rows [first_row, first_row + num_rows) of every head.
struct CqlHeadCudaBackward : CqlHeadCudaCall {
  int64_t first_row, num_rows;
  const float *q, *lse;    // not looked at without dlse
  const float *dq, *dlse;  // either may be null
  float* g;                // gradient of Q [E, num_rows], or null
  float* dactions;         // [E, num_rows, A], or null
};

// 32-bit words of packed weights of one head.
int64_t cql_head_packed_words(const CqlHeadCudaCall& call);

// Throw std::runtime_error where a launch fails. ``stream``: cudaStream_t.
void cql_head_forward_cuda(const CqlHeadCudaForward& op, int64_t stream);
void cql_head_backward_cuda(const CqlHeadCudaBackward& op, int64_t stream);

}  // namespace ptr_fast
