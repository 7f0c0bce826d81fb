// Q of K actions per state by an ensemble of ReLU networks, and its log-sum-exp (CPU, float32). The contract is that of
// ptr_fast/kernels/cql_head. Hidden layers are computed for a tile of rows (state, action) at a time; the forward pass
// keeps them for the backward pass where it is given memory, else they are computed again there.
#pragma once
#include <cstdint>
#include <vector>

namespace ptr_fast {

// Layer i of a head; the last one has width 1. Rows are dense, heads lie `*_stride` floats apart.
struct CqlHeadLayer {
  int64_t width;
  const float* term;    // [E, B, width], or [E, 1, width] with shared_term
  const float* action;  // [E, A, width] or null
  const float* hidden;  // [E, width of the layer before, width]; null in the first layer
  int64_t action_stride, hidden_stride;
  bool shared_term;
  // Gradients, dense in those shapes; null where they are not wanted. Backward pass only.
  float *dterm, *daction, *dhidden;
};

struct CqlHeadForward {
  int64_t E, B, K, A;
  std::vector<CqlHeadLayer> layers;
  const float* actions;     // [B, K, A]
  const float* log_weight;  // [B, K] or null
  float* q;                 // [E, B, K]
  float* lse;               // [E, B], null like log_weight
  float* hidden;            // [cql_head_hidden_size], or null: hidden layers are not kept
};

struct CqlHeadBackward {
  int64_t E, B, K, A;
  std::vector<CqlHeadLayer> layers;
  const float* actions;
  const float *log_weight, *q, *lse;  // as above; not looked at without dlse
  const float *dq, *dlse;             // either may be null
  const float* hidden;                // as the forward pass left it, or null
  float* dactions;                    // [B, K, A] or null
};

// Floats that the hidden layers of all rows take with the instruction set in use.
int64_t cql_head_hidden_size(int64_t E, int64_t num_rows, const std::vector<CqlHeadLayer>& layers);

void cql_head_forward(const CqlHeadForward& op, int num_threads);

// The same bits for any number of threads.
void cql_head_backward(const CqlHeadBackward& op, int num_threads);

}  // namespace ptr_fast
