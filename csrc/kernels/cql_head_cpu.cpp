#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>

#include "core/isa.h"
#include "core/parallel.h"
#include "kernels/cql_head.h"
#include "kernels/cql_head_simd.h"

namespace ptr_fast {
namespace {

// Rows whose hidden layers are held at once: multiples of 12, few enough for the second-level cache.
constexpr int64_t kTileRows = 96;
// Rows that add up their weight gradients in one place: fixed, so that the sums do not depend on the threads.
constexpr int64_t kChunkRows = 1152;

struct AlignedDelete {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

Buffer make_buffer(int64_t size) {
  return Buffer(static_cast<float*>(::operator new[](size_t(size) * sizeof(float), std::align_val_t{64})));
}

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Where things lie: widths padded to whole panels, packed weights of every head, a tile's buffers.
struct Layout {
  Layout(const CqlHeadLoops& loops, int64_t A, const std::vector<CqlHeadLayer>& layers)
      : A(A), num_hidden(int64_t(layers.size()) - 1) {
    for (int64_t i = 0; i <= num_hidden; ++i) {
      cols.push_back(round_up(layers[i].width, loops.panel));
      // One line more than the row, lest equal columns of all rows fall into the same sets of the cache.
      ld.push_back(cols.back() + 16);
    }
    for (int64_t i = 0; i < num_hidden; ++i) {
      before.push_back(row_size);
      row_size += ld[i];
    }
    widest = *std::max_element(ld.begin(), ld.end());
  }

  int64_t A, num_hidden;
  std::vector<int64_t> cols, ld, before;
  int64_t row_size = 0, widest = 0;  // floats of all hidden layers of a row
};

// The hidden layers of a tile: rows from `first` on of memory for num_rows, one layer after the other.
struct HiddenRows {
  float* memory;
  int64_t num_rows, first;
  float* layer(const Layout& layout, int64_t i) const {
    return memory + num_rows * layout.before[i] + first * layout.ld[i];
  }
};

// The weights of one head, packed.
struct PackedHead {
  // Per hidden layer [k, cols] in panels; null where there is none.
  std::vector<const float*> hidden, action;
  // The same transposed, where they are needed: hidden_t[i] is [width, cols of layer i - 1].
  std::vector<const float*> hidden_t, action_t;
  const float* last = nullptr;  // [cols of the last hidden layer], zeros at its end
  // Per hidden layer [B or 1, cols], and the way from one state's term to the next one's.
  std::vector<const float*> term;
  std::vector<int64_t> term_step;
  Buffer memory;
};

struct Head {
  const CqlHeadLoops& loops;
  const Layout& layout;
  int64_t B, K;
  const std::vector<CqlHeadLayer>& layers;
  const float* actions;
};

PackedHead pack_head(const Head& head, int64_t e, bool transpose_hidden, bool transpose_action) {
  const auto& [loops, layout, B, K, layers, actions] = head;
  const int64_t A = layout.A, L = layout.num_hidden, action_cols = round_up(A, loops.panel);
  const auto pads = [&](int64_t i) { return layers[i].width != layout.cols[i]; };
  int64_t size = layout.cols[L - 1];
  for (int64_t i = 0; i < L; ++i) {
    const int64_t before = i > 0 ? layers[i - 1].width : 0;
    size += (before + A) * layout.cols[i];
    if (transpose_hidden && i > 0) size += layers[i].width * layout.cols[i - 1];
    if (transpose_action) size += layers[i].width * action_cols;
    if (pads(i)) size += (layers[i].shared_term ? 1 : B) * layout.cols[i];
  }
  PackedHead out;
  out.memory = make_buffer(size);
  float* at = out.memory.get();
  const auto pack = [&](const float* w, int64_t k, int64_t cols, int64_t row_stride, int64_t col_stride) {
    float* const begin = at;
    loops.pack(w, k, cols, row_stride, col_stride, begin);
    at += k * round_up(cols, loops.panel);
    return begin;
  };
  for (int64_t i = 0; i < L; ++i) {
    const CqlHeadLayer& layer = layers[i];
    const int64_t before = i > 0 ? layers[i - 1].width : 0, width = layer.width;
    const float* const hidden = layer.hidden ? layer.hidden + e * layer.hidden_stride : nullptr;
    const float* const action = layer.action ? layer.action + e * layer.action_stride : nullptr;
    out.hidden.push_back(hidden ? pack(hidden, before, width, width, 1) : nullptr);
    out.action.push_back(action ? pack(action, A, width, width, 1) : nullptr);
    out.hidden_t.push_back(hidden && transpose_hidden ? pack(hidden, width, before, 1, width) : nullptr);
    out.action_t.push_back(action && transpose_action ? pack(action, width, A, 1, width) : nullptr);
    const int64_t num_terms = layer.shared_term ? 1 : B;
    const float* const term = layer.term + e * num_terms * width;
    if (pads(i)) {
      float* const padded = at;
      at += num_terms * layout.cols[i];
      for (int64_t b = 0; b < num_terms; ++b) {
        float* const row = padded + b * layout.cols[i];
        std::copy_n(term + b * width, width, row);
        std::fill(row + width, row + layout.cols[i], 0.0f);
      }
      out.term.push_back(padded);
    } else {
      out.term.push_back(term);
    }
    out.term_step.push_back(layer.shared_term ? 0 : layout.cols[i]);
  }
  const int64_t width = layers[L - 1].width;
  std::copy_n(layers[L].hidden + e * layers[L].hidden_stride, width, at);
  std::fill(at + width, at + layout.cols[L - 1], 0.0f);
  out.last = at;
  return out;
}

// The hidden layers of rows [first, first + rows), into `hidden`.
void hidden_layers(const Head& head, const PackedHead& packed, int64_t first, int64_t rows, const HiddenRows& hidden) {
  const auto& [loops, layout, B, K, layers, actions] = head;
  const float* init[kTileRows];
  for (int64_t i = 0; i < layout.num_hidden; ++i) {
    for (int64_t r = 0; r < rows; ++r) init[r] = packed.term[i] + (first + r) / K * packed.term_step[i];
    CqlHeadProduct op{};
    op.rows = rows;
    op.cols = layout.cols[i];
    op.init = init;
    if (i > 0) {
      op.a1 = hidden.layer(layout, i - 1);
      op.w1 = packed.hidden[i];
      op.lda1 = layout.ld[i - 1];
      op.k1 = layers[i - 1].width;
    }
    if (packed.action[i]) {
      op.a2 = actions + first * layout.A;
      op.w2 = packed.action[i];
      op.lda2 = op.k2 = layout.A;
    }
    op.relu = true;
    op.out = hidden.layer(layout, i);
    op.ld_out = layout.ld[i];
    loops.product(op);
  }
}

float log_sum_exp(const float* q, const float* log_weight, int64_t K) {
  float top = -std::numeric_limits<float>::infinity();
  for (int64_t k = 0; k < K; ++k) {
    const float logit = q[k] + log_weight[k];
    if (std::isnan(logit)) return logit;
    top = std::max(top, logit);
  }
  if (std::isinf(top)) return top;
  double sum = 0.0;
  for (int64_t k = 0; k < K; ++k) sum += std::exp(q[k] + log_weight[k] - top);
  return top + float(std::log(sum));
}

// Below this many multiplications the work is smaller than the cost of waking threads.
int useful_threads(const Head& head, int64_t E, int num_threads) {
  double per_row = 0.0;
  for (int64_t i = 1; i <= head.layout.num_hidden; ++i) {
    per_row += double(head.layers[i - 1].width) * double(head.layers[i].width);
  }
  const double threads = double(E) * double(head.B) * double(head.K) * per_row / 2e6;
  return int(std::clamp(threads, 1.0, double(num_threads)));
}

// Gradients of one head over one chunk of rows that are sums over rows; dense and padded to whole panels.
struct Partial {
  Partial(const Layout& layout, const std::vector<CqlHeadLayer>& layers) {
    int64_t size = 0;
    const auto take = [&](std::vector<int64_t>& at, bool wanted, int64_t n) {
      at.push_back(size);
      size += wanted ? n : 0;
    };
    for (int64_t i = 0; i <= layout.num_hidden; ++i) {
      const CqlHeadLayer& layer = layers[i];
      const bool last = i == layout.num_hidden;
      const int64_t cols = last ? 1 : layout.cols[i];
      take(hidden_at, layer.dhidden, last ? layout.cols[i - 1] : (i > 0 ? layers[i - 1].width * cols : 0));
      take(action_at, layer.daction, layout.A * cols);
      take(term_at, layer.dterm && layer.shared_term, cols);
    }
    memory = make_buffer(size);
    std::memset(memory.get(), 0, size_t(size) * sizeof(float));
  }

  float* hidden(int64_t i) const { return memory.get() + hidden_at[i]; }
  float* action(int64_t i) const { return memory.get() + action_at[i]; }
  float* term(int64_t i) const { return memory.get() + term_at[i]; }

  std::vector<int64_t> hidden_at, action_at, term_at;
  Buffer memory;
};

// Gradients of rows [first, end) of head e, which are whole states: no other call touches their state terms.
class ChunkBackward {
 public:
  ChunkBackward(const CqlHeadBackward& op, const Head& head, const PackedHead& packed, int64_t e, const Partial& sums,
                float* dactions)
      : op_(op),
        head_(head),
        packed_(packed),
        e_(e),
        sums_(sums),
        dactions_(dactions),
        action_cols_(round_up(op.A, head.loops.panel)),
        hidden_(make_buffer(op.hidden ? 0 : kTileRows * head.layout.row_size)),
        gradients_(make_buffer(2 * kTileRows * head.layout.widest)),
        dactions_tile_(make_buffer(kTileRows * action_cols_)),
        dterm_(make_buffer(head.layout.widest)) {}

  void run(int64_t first, int64_t end) {
    for (int64_t i = 0; i <= head_.layout.num_hidden; ++i) {
      const CqlHeadLayer& layer = op_.layers[i];
      if (layer.dterm && !layer.shared_term) {
        const int64_t b = first / op_.K, n = (end - first) / op_.K;
        std::memset(layer.dterm + (e_ * op_.B + b) * layer.width, 0, size_t(n * layer.width) * sizeof(float));
      }
    }
    for (int64_t r = first; r < end; r += kTileRows) tile(r, std::min(kTileRows, end - r));
  }

 private:
  void tile(int64_t first, int64_t rows) {
    const auto& [loops, layout, B, K, layers, actions] = head_;
    const int64_t L = layout.num_hidden;
    HiddenRows hidden{hidden_.get(), kTileRows, 0};
    if (op_.hidden) {
      hidden = {const_cast<float*>(op_.hidden) + e_ * B * K * layout.row_size, B * K, first};
    } else {
      hidden_layers(head_, packed_, first, rows, hidden);
    }
    output_gradients(first, rows);
    const CqlHeadLayer& last = op_.layers[L];
    float* d = gradients_.get();
    float* d_before = d + kTileRows * layout.widest;
    loops.dot_backward(hidden.layer(layout, L - 1), layout.ld[L - 1], rows, layout.cols[L - 1], packed_.last, dq_, d,
                       last.dhidden ? sums_.hidden(L) : nullptr);
    last_layer(last, first, rows);
    for (int64_t i = L - 1;; --i) {
      const CqlHeadLayer& layer = op_.layers[i];
      if (layer.dterm) term_gradients(layer, i, first, rows, d);
      if (layer.daction) outer(actions + first * op_.A, op_.A, op_.A, d, i, rows, sums_.action(i));
      if (dactions_ && layer.action) action_gradients(i, rows, d);
      if (i == 0) break;
      const float* const h = hidden.layer(layout, i - 1);
      if (layer.dhidden) outer(h, layout.ld[i - 1], layers[i - 1].width, d, i, rows, sums_.hidden(i));
      if (!packed_.hidden_t[i]) break;  // nothing below is wanted
      CqlHeadProduct back{};
      back.rows = rows;
      back.cols = layout.cols[i - 1];
      back.a1 = d;
      back.lda1 = layout.ld[i];
      back.k1 = layers[i].width;
      back.w1 = packed_.hidden_t[i];
      back.mask = h;
      back.ld_mask = back.ld_out = layout.ld[i - 1];
      back.out = d_before;
      loops.product(back);
      std::swap(d, d_before);
    }
    if (dactions_) {
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(dactions_tile_.get() + r * action_cols_, op_.A, dactions_ + (first + r) * op_.A);
      }
    }
  }

  // dq and, through the log-sum-exp, its softmax.
  void output_gradients(int64_t first, int64_t rows) {
    const int64_t at = e_ * op_.B * op_.K + first;
    for (int64_t r = 0; r < rows; ++r) {
      dq_[r] = op_.dq ? op_.dq[at + r] : 0.0f;
      if (!op_.dlse) continue;
      const int64_t state = e_ * op_.B + (first + r) / op_.K;
      const float lse = op_.lse[state];
      if (lse == -std::numeric_limits<float>::infinity()) continue;
      dq_[r] += op_.dlse[state] * std::exp(op_.q[at + r] + op_.log_weight[first + r] - lse);
    }
  }

  // All of the last layer but its hidden weights.
  void last_layer(const CqlHeadLayer& last, int64_t first, int64_t rows) {
    const int64_t L = head_.layout.num_hidden, A = op_.A;
    const float* const weight = last.action ? last.action + e_ * last.action_stride : nullptr;
    for (int64_t r = 0; r < rows; ++r) {
      const float g = dq_[r];
      if (last.dterm) *(last.shared_term ? sums_.term(L) : last.dterm + e_ * op_.B + (first + r) / op_.K) += g;
      if (last.daction) {
        for (int64_t a = 0; a < A; ++a) sums_.action(L)[a] += g * op_.actions[(first + r) * A + a];
      }
      if (dactions_) {
        float* const out = dactions_tile_.get() + r * action_cols_;
        for (int64_t a = 0; a < action_cols_; ++a) out[a] = weight && a < A ? g * weight[a] : 0.0f;
      }
    }
  }

  void outer(const float* x, int64_t ldx, int64_t num_x, const float* d, int64_t i, int64_t rows, float* c) const {
    const int64_t cols = head_.layout.cols[i];
    head_.loops.outer({rows, num_x, cols, x, d, ldx, head_.layout.ld[i], c, cols});
  }

  void term_gradients(const CqlHeadLayer& layer, int64_t i, int64_t first, int64_t rows, const float* d) {
    const int64_t ld = head_.layout.ld[i], cols = head_.layout.cols[i], K = op_.K;
    if (layer.shared_term) {
      head_.loops.sum_rows(d, ld, rows, cols, sums_.term(i));
      return;
    }
    for (int64_t r = 0; r < rows;) {  // the rows of one state after the other's
      const int64_t state = (first + r) / K, n = std::min(rows - r, (state + 1) * K - (first + r));
      std::memset(dterm_.get(), 0, size_t(cols) * sizeof(float));
      head_.loops.sum_rows(d + r * ld, ld, n, cols, dterm_.get());
      float* const out = layer.dterm + (e_ * op_.B + state) * layer.width;
      for (int64_t c = 0; c < layer.width; ++c) out[c] += dterm_[c];
      r += n;
    }
  }

  void action_gradients(int64_t i, int64_t rows, const float* d) {
    const float* init[kTileRows];
    for (int64_t r = 0; r < rows; ++r) init[r] = dactions_tile_.get() + r * action_cols_;
    CqlHeadProduct op{};
    op.rows = rows;
    op.cols = op.ld_out = action_cols_;
    op.init = init;
    op.a1 = d;
    op.lda1 = head_.layout.ld[i];
    op.k1 = head_.layers[i].width;
    op.w1 = packed_.action_t[i];
    op.out = dactions_tile_.get();
    head_.loops.product(op);
  }

  const CqlHeadBackward& op_;
  const Head& head_;
  const PackedHead& packed_;
  const int64_t e_;
  const Partial& sums_;
  float* const dactions_;  // of this head, [B, K, A]
  const int64_t action_cols_;
  Buffer hidden_, gradients_, dactions_tile_, dterm_;
  float dq_[kTileRows];
};

// out = the sum of `parts` in their order; out is [rows, width] and dense, the parts are [rows, cols].
template <class Part>
void add_up(int64_t num_parts, const Part& part, int64_t rows, int64_t width, int64_t cols, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    std::copy_n(part(0) + r * cols, width, out + r * width);
    for (int64_t p = 1; p < num_parts; ++p) {
      const float* const from = part(p) + r * cols;
      for (int64_t c = 0; c < width; ++c) out[r * width + c] += from[c];
    }
  }
}

}  // namespace

int64_t cql_head_hidden_size(int64_t E, int64_t num_rows, const std::vector<CqlHeadLayer>& layers) {
  return E * num_rows * Layout(PTR_FAST_SELECT_ISA(cql_head_loops), 0, layers).row_size;
}

void cql_head_forward(const CqlHeadForward& op, int num_threads) {
  const CqlHeadLoops& loops = PTR_FAST_SELECT_ISA(cql_head_loops);
  const Layout layout(loops, op.A, op.layers);
  const Head head{loops, layout, op.B, op.K, op.layers, op.actions};
  const int64_t E = op.E, R = op.B * op.K, L = layout.num_hidden, num_tiles = (R + kTileRows - 1) / kTileRows;
  num_threads = useful_threads(head, E, num_threads);
  std::vector<PackedHead> packed(E);
  parallel_for(E, num_threads, [&](int64_t e) { packed[e] = pack_head(head, e, false, false); });
  parallel_for(E * num_tiles, num_threads, [&](int64_t item) {
    const int64_t e = item / num_tiles, first = item % num_tiles * kTileRows, rows = std::min(kTileRows, R - first);
    const Buffer tile = make_buffer(op.hidden ? 0 : kTileRows * layout.row_size);
    HiddenRows hidden{tile.get(), kTileRows, 0};
    if (op.hidden) hidden = {op.hidden + e * R * layout.row_size, R, first};
    hidden_layers(head, packed[e], first, rows, hidden);
    float* const q = op.q + e * R + first;
    loops.dot(hidden.layer(layout, L - 1), layout.ld[L - 1], rows, layout.cols[L - 1], packed[e].last, q);
    const CqlHeadLayer& last = op.layers[L];
    const float* const weight = last.action ? last.action + e * last.action_stride : nullptr;
    for (int64_t r = 0; r < rows; ++r) {
      float value = last.term[last.shared_term ? e : e * op.B + (first + r) / op.K];
      for (int64_t a = 0; weight && a < op.A; ++a) value += op.actions[(first + r) * op.A + a] * weight[a];
      q[r] += value;
    }
  });
  if (!op.lse) return;
  for (int64_t state = 0; state < E * op.B; ++state) {
    op.lse[state] = log_sum_exp(op.q + state * op.K, op.log_weight + state % op.B * op.K, op.K);
  }
}

void cql_head_backward(const CqlHeadBackward& op, int num_threads) {
  const CqlHeadLoops& loops = PTR_FAST_SELECT_ISA(cql_head_loops);
  const Layout layout(loops, op.A, op.layers);
  const Head head{loops, layout, op.B, op.K, op.layers, op.actions};
  const int64_t E = op.E, K = op.K, R = op.B * K;
  const int64_t chunk = std::max<int64_t>(1, kChunkRows / K) * K, num_chunks = (R + chunk - 1) / chunk;
  num_threads = useful_threads(head, E, num_threads);
  bool below_last = op.dactions != nullptr;
  for (int64_t i = 0; i < layout.num_hidden; ++i) {
    const CqlHeadLayer& layer = op.layers[i];
    below_last = below_last || layer.dterm || layer.daction || layer.dhidden;
  }
  std::vector<PackedHead> packed(E);
  parallel_for(E, num_threads, [&](int64_t e) { packed[e] = pack_head(head, e, below_last, op.dactions != nullptr); });
  // Every head has its own gradient of the actions; their sum comes at the end.
  const Buffer dactions = make_buffer(op.dactions ? E * R * op.A : 0);
  std::vector<std::unique_ptr<Partial>> parts(E * num_chunks);
  parallel_for(E * num_chunks, num_threads, [&](int64_t item) {
    const int64_t e = item / num_chunks, first = item % num_chunks * chunk;
    parts[item] = std::make_unique<Partial>(layout, op.layers);
    ChunkBackward backward(op, head, packed[e], e, *parts[item], op.dactions ? dactions.get() + e * R * op.A : nullptr);
    backward.run(first, std::min(R, first + chunk));
  });
  parallel_for(E, num_threads, [&](int64_t e) {
    for (int64_t i = 0; i <= layout.num_hidden; ++i) {
      const CqlHeadLayer& layer = op.layers[i];
      const bool last = i == layout.num_hidden;
      const int64_t before = i > 0 ? op.layers[i - 1].width : 0, width = layer.width, cols = last ? 1 : layout.cols[i];
      const auto sum = [&](auto part, int64_t rows, float* out) {
        add_up(num_chunks, [&](int64_t p) { return part(*parts[e * num_chunks + p]); }, rows, width, cols, out);
      };
      if (layer.dhidden) {
        sum([i](const Partial& p) { return p.hidden(i); }, before, layer.dhidden + e * before * width);
      }
      if (layer.daction) {
        sum([i](const Partial& p) { return p.action(i); }, op.A, layer.daction + e * op.A * width);
      }
      if (layer.dterm && layer.shared_term) {
        sum([i](const Partial& p) { return p.term(i); }, 1, layer.dterm + e * width);
      }
    }
  });
  if (op.dactions) {
    add_up(E, [&](int64_t e) { return dactions.get() + e * R * op.A; }, 1, R * op.A, R * op.A, op.dactions);
  }
}

}  // namespace ptr_fast
