// cql_head on a Block (core/block.h): Q of a tile of rows, and its gradients. The contract is that of
// ptr_fast/kernels/cql_head; what calls this is cql_head_launch.h.
//
// Names: a row is a state with one of its actions; a block has kRows of them, of one head, and holds every hidden layer
// of them in turn. Products are [rows, k] x [k, N] with k in units of 64 bytes (16 TF32 or 32 bfloat16). N is the
// padded width of all hidden layers; pads are zeros, so they add nothing.
#pragma once
#include "kernels/cql_head_pack_block.h"

namespace ptr_fast {

// A hidden layer, or the last one, as CqlHeadRows sees it.
struct CqlHeadTerm {
  Global<const float> term;  // [E, B, width]; state_stride 0 where all states share it
  int64_t head_stride;
  int state_stride, width;
  bool has_action;
  // Words of a head's packed weights: [action; hidden] forward, hidden transposed, action transposed.
  int64_t forward, back, back_action;
  Global<float> h, d;  // [E, num_rows, width] of the block of rows, or null (backward)
};

// Q of rows [first_row, first_row + num_rows) of every head; block x has kRows of them, block y is the head. With
// kBackward Q is there already, and every hidden layer, its gradient before the ReLU and the gradients of the actions
// are written.
template <class Precision, int kWidth, bool kBackward>
struct CqlHeadRows {
  static constexpr int kThreads = 256;
  // Two would leave 128 registers a thread: at the larger width some of the phases between products spill a few.
  static constexpr int kMinBlocks = kWidth > 128 ? 1 : 2;
  static constexpr int kRowTiles = 4;  // of 16 rows; every warp has all of them
  static constexpr int kRows = 16 * kRowTiles;
  static constexpr int kWarps = kThreads / kWarp;
  static constexpr int kColTiles = kWidth / 8 / kWarps;  // of 8 columns, of a warp
  static constexpr int kUnitK = kCqlHeadUnitWords * Precision::kPerWord;
  // Of the tile: the actions' unit, then those of a layer. An odd number of units: no bank conflicts.
  static constexpr int kRowWords = (1 + kWidth / kUnitK) * kCqlHeadUnitWords;
  static_assert(kCqlHeadMaxAction <= kUnitK && kWidth / kUnitK % 2 == 0);
  static_assert(kCqlHeadMaxAction / 8 * kRowTiles == kWarps);  // a warp has one tile of the actions' gradient
  static constexpr int kPartials = kWarps * 4 + 1;

  using Accumulator = Registers<Registers<float, 4>, kRowTiles * kColTiles>;
  using Weights = Registers<Vector<uint32_t>, kColTiles>;

  CqlHeadTerm layers[kCqlHeadMaxHidden];
  CqlHeadTerm last;
  int num_hidden, num_action;
  int64_t num_states, num_samples, first_row, num_rows, head_words;
  Global<const float> actions;      // [B, K, A]
  Global<const uint32_t> packed;    // [E, head_words]
  Global<const float> last_weight;  // [width of the last hidden layer] of every head
  Global<const float> last_action;  // [A] of every head, or null
  int64_t last_weight_head, last_action_head;
  Global<float> q;  // [E, B, K]; forward
  // Backward; null where they are not given or not wanted.
  Global<const float> log_weight, q_given, lse, dq, dlse;
  Global<float> g, dactions;  // [E, num_rows], [E, num_rows, A]

  PTR_HOST_DEVICE int64_t shared_bytes() const {
    const int64_t tile = shared_size<uint32_t>(kRows * kRowWords) + shared_size<int>(kRows);
    if (!kBackward) return tile + shared_size<float>(kRows * kPartials);
    return tile + shared_size<float>(kRows) + shared_size<uint32_t>(num_hidden * kMaskWords * kThreads);
  }

  template <class Block>
  PTR_DEVICE void run(Block& block) const {
    auto tile = block.template shared<uint32_t>("tile", kRows * kRowWords);
    auto states = block.template shared<int>("states", kRows);
    PerThread<Accumulator, Block> acc(block);
    block.phase([&](Thread t) { begin(block, t, tile, states); });
    if constexpr (!kBackward) {
      auto partials = block.template shared<float>("partials", kRows * kPartials);
      for (int i = 0; i < num_hidden; ++i) layer(block, i, tile, states, acc);
      block.phase([&](Thread t) { dot(block, anew(t), acc[t], partials); });
      block.phase([&](Thread t) { finish(block, anew(t), states, partials); });
    } else {
      auto gradients = block.template shared<float>("g", kRows);
      auto masks = block.template shared<uint32_t>("masks", num_hidden * kMaskWords * kThreads);
      block.phase([&](Thread t) { upstream(block, t, states, gradients); });
      for (int i = 0; i < num_hidden; ++i) {
        layer(block, i, tile, states, acc);
        block.each_thread([&](Thread t) { remember(anew(t), i, acc[t], masks); });
        if (layers[i].h.data != nullptr) {
          if (i + 1 == num_hidden) put(block, acc, tile);
          block.each_thread([&](Thread t) { write(block, anew(t), tile, layers[i].h, layers[i].width); });
        }
      }
      block.each_thread([&](Thread t) { from_q(block, anew(t), acc[t], gradients); });
      PerThread<Registers<float, 4>, Block> to_actions(block);
      block.each_thread([&](Thread t) { to_actions[t] = {}; });
      for (int i = num_hidden - 1; i >= 0; --i) {
        block.each_thread([&](Thread t) { forget(anew(t), i, acc[t], masks); });
        put(block, acc, tile);
        if (layers[i].d.data != nullptr) {
          block.each_thread([&](Thread t) { write(block, anew(t), tile, layers[i].d, layers[i].width); });
        }
        const bool to_action = dactions.data != nullptr && layers[i].has_action;
        if (to_action) multiply_to_actions(block, i, tile, to_actions);
        if (i == 0) break;
        block.each_thread([&](Thread t) { acc[t] = {}; });
        multiply(block, layers[i].back, 1, units_of(layers[i].width), tile, acc);
      }
      if (dactions.data != nullptr) {
        block.phase([&](Thread t) { write_actions(block, t, to_actions[t], gradients); });
      }
    }
  }

 private:
  static constexpr int kMaskWords = (kRowTiles * kColTiles * 4 + 31) / 32;

  PTR_HOST_DEVICE static int units_of(int num_k) { return (num_k + kUnitK - 1) / kUnitK; }

  // The same thread, of whose index the compiler knows nothing: addresses and masks made of it are not kept in
  // registers through the products of a whole layer, where there is no room for them.
  PTR_HOST_DEVICE static Thread anew(Thread t) {
#ifdef __CUDA_ARCH__
    asm volatile("" : "+r"(t.index));
#endif
    return t;
  }

  // Row of the tile that an accumulator's element 2 * half belongs to, and its column in the layer.
  PTR_HOST_DEVICE static int row_of(Thread t, int row_tile, int half) {
    return row_tile * 16 + half * 8 + t.lane() / 4;
  }
  PTR_HOST_DEVICE static int col_of(Thread t, int col_tile) {
    return (t.warp() * kColTiles + col_tile) * 8 + t.lane() % 4 * 2;
  }

  template <class Block>
  PTR_DEVICE int64_t row_in_block(const Block& block, int row) const {
    return int64_t(block.index().x) * kRows + row;
  }

  // Actions into the tile, and the state of each row; rows beyond the last one are zeros of state 0.
  template <class Block, class Tile, class States>
  PTR_DEVICE void begin(const Block& block, Thread t, Tile& tile, States& states) const {
    if (t.index < kRows) {
      const int64_t row = row_in_block(block, t.index);
      states.set(t, t.index, row < num_rows ? int((first_row + row) / num_samples) : 0);
    }
    constexpr int words = kCqlHeadUnitWords;
    for (int i = t.index; i < kRows * words; i += kThreads) {
      const int64_t row = row_in_block(block, i / words);
      const int k = i % words * Precision::kPerWord;
      const auto value = [&](int a) {
        return row < num_rows && a < num_action ? actions.load_nc(t, (first_row + row) * num_action + a) : 0.0f;
      };
      tile.set(t, i / words * kRowWords + i % words,
               Precision::word(value(k), Precision::kPerWord == 2 ? value(k + 1) : 0.0f));
    }
  }

  // acc = ReLU(term + [actions, layer before] [W_action; W_hidden]); what is not the last layer goes into the tile.
  template <class Block, class Tile, class States>
  PTR_DEVICE void layer(Block& block, int i, Tile& tile, States& states, PerThread<Accumulator, Block>& acc) const {
    const CqlHeadTerm& to = layers[i];
    block.each_thread([&](Thread t) { acc[t] = {}; });
    const int first = to.has_action ? 0 : 1;
    const int num_units = (to.has_action ? 1 : 0) + (i > 0 ? units_of(layers[i - 1].width) : 0);
    multiply(block, to.forward, first, num_units, tile, acc);
    block.each_thread([&](Thread same) {
      const Thread t = anew(same);
      const int64_t head = block.index().y * to.head_stride;
      PTR_UNROLL for (int m = 0; m < kRowTiles; ++m) {
        PTR_UNROLL for (int half = 0; half < 2; ++half) {
          const int64_t from = head + states.at(t, row_of(t, m, half)) * to.state_stride;
          PTR_UNROLL for (int n = 0; n < kColTiles; ++n) {
            PTR_UNROLL for (int j = 0; j < 2; ++j) {
              const int col = col_of(t, n) + j;
              float& x = acc[t][m * kColTiles + n][half * 2 + j];
              // Of pads zeros: an infinity times a pad of the weights is none.
              x = col < to.width ? relu(x + to.term.load_nc(t, from + col)) : 0.0f;
            }
          }
        }
      }
    });
    if (i + 1 < num_hidden) put(block, acc, tile);
  }

  PTR_HOST_DEVICE static float relu(float x) { return x < 0.0f ? 0.0f : x; }  // keeps a NaN

  // acc += tile[:, units from ``first`` on] times packed weights [num_units, kWidth].
  template <class Block, class Tile>
  PTR_DEVICE void multiply(Block& block, int64_t weights, int first, int num_units, Tile& tile,
                           PerThread<Accumulator, Block>& acc) const {
    PerThread<Weights, Block> now(block), next(block);
    const auto fetch = [&](Thread t, int unit) {
      Weights out;
      const int64_t from = block.index().y * head_words + weights + t.lane() * 4 +
                           (unit * (kWidth / 8) + t.warp() * kColTiles) * kCqlHeadFragmentWords;
      PTR_UNROLL for (int n = 0; n < kColTiles; ++n) out[n] =
          packed.load_nc_vector(t, from + n * kCqlHeadFragmentWords);
      return out;
    };
    block.each_thread([&](Thread t) { next[t] = fetch(t, 0); });
    for (int unit = 0; unit < num_units; ++unit) {
      block.each_thread([&](Thread t) {
        now[t] = next[t];
        if (unit + 1 < num_units) next[t] = fetch(t, unit + 1);  // arrives while this one is multiplied
      });
      PTR_UNROLL for (int m = 0; m < kRowTiles; ++m) {
        PerThread<Rows16, Block> rows(block);
        block.each_thread([&](Thread t) { rows[t] = rows_of(t, tile, m, first + unit); });
        PTR_UNROLL for (int step = 0; step < 2; ++step) {
          PTR_UNROLL for (int n = 0; n < kColTiles; ++n) {
            Precision::mma(
                block, [&](Thread t) -> Registers<float, 4>& { return acc[t][m * kColTiles + n]; },
                [&](Thread t) { return rows[t].step(step); }, [&](Thread t) { return step_of(now[t][n], step); });
          }
        }
      }
    }
  }

  // A lane's part of 16 rows of a unit.
  struct Rows16 {
    Vector<uint32_t> upper, lower;
    PTR_HOST_DEVICE Registers<uint32_t, 4> step(int s) const {
      return {{upper[2 * s], lower[2 * s], upper[2 * s + 1], lower[2 * s + 1]}};
    }
  };

  PTR_HOST_DEVICE static Registers<uint32_t, 2> step_of(const Vector<uint32_t>& weights, int step) {
    return {{weights[2 * step], weights[2 * step + 1]}};
  }

  template <class Tile>
  PTR_DEVICE Rows16 rows_of(Thread t, Tile& tile, int row_tile, int unit) const {
    const int from = row_of(t, row_tile, 0) * kRowWords + unit * kCqlHeadUnitWords + t.lane() % 4 * 4;
    return {tile.at_vector(t, from), tile.at_vector(t, from + 8 * kRowWords)};
  }

  // acc, rounded, into the tile's columns of a layer, once every warp has read what is there.
  template <class Block, class Tile>
  PTR_DEVICE void put(Block& block, PerThread<Accumulator, Block>& acc, Tile& tile) const {
    block.phase([](Thread) {});
    block.phase([&](Thread same) {
      const Thread t = anew(same);
      PTR_UNROLL for (int m = 0; m < kRowTiles; ++m) {
        PTR_UNROLL for (int n = 0; n < kColTiles; ++n) {
          PTR_UNROLL for (int half = 0; half < 2; ++half) {
            const float a = acc[t][m * kColTiles + n][half * 2], b = acc[t][m * kColTiles + n][half * 2 + 1];
            const int at = row_of(t, m, half) * kRowWords + kCqlHeadUnitWords + col_of(t, n) / Precision::kPerWord;
            tile.set(t, at, Precision::word(a, b));
            if constexpr (Precision::kPerWord == 1) tile.set(t, at + 1, Precision::word(b, 0.0f));
          }
        }
      }
    });
  }

  // A thread's share of the last layer's sums, in float32.
  template <class Block, class Partials>
  PTR_DEVICE void dot(const Block& block, Thread t, const Accumulator& acc, Partials& partials) const {
    const int width = layers[num_hidden - 1].width;
    Registers<float, 2 * kColTiles> weights;
    PTR_UNROLL for (int i = 0; i < 2 * kColTiles; ++i) {
      const int col = col_of(t, i / 2) + i % 2;
      weights[i] = col < width ? last_weight.load_nc(t, block.index().y * last_weight_head + col) : 0.0f;
    }
    PTR_UNROLL for (int m = 0; m < kRowTiles; ++m) {
      PTR_UNROLL for (int half = 0; half < 2; ++half) {
        float sum = 0.0f;
        PTR_UNROLL for (int i = 0; i < 2 * kColTiles; ++i) {
          sum += acc[m * kColTiles + i / 2][half * 2 + i % 2] * weights[i];
        }
        partials.set(t, row_of(t, m, half) * kPartials + t.warp() * 4 + t.lane() % 4, sum);
      }
    }
  }

  template <class Block, class States, class Partials>
  PTR_DEVICE void finish(const Block& block, Thread t, States& states, Partials& partials) const {
    const int64_t row = row_in_block(block, t.index), head = block.index().y;
    if (t.index >= kRows || row >= num_rows) return;
    float sum = last.term.load_nc(t, head * last.head_stride + states.at(t, t.index) * last.state_stride);
    if (last_action.data != nullptr) {
      for (int a = 0; a < num_action; ++a) {
        sum += actions.load_nc(t, (first_row + row) * num_action + a) *
               last_action.load_nc(t, head * last_action_head + a);
      }
    }
    PTR_UNROLL for (int i = 0; i < kPartials - 1; ++i) sum += partials.at(t, t.index * kPartials + i);
    q.set(t, head * num_states * num_samples + first_row + row, sum);
  }

  // Gradient of Q: its own and that of the log-sum-exp times the softmax; zero of rows beyond the last one.
  template <class Block, class States, class Gradients>
  PTR_DEVICE void upstream(const Block& block, Thread t, States& states, Gradients& gradients) const {
    if (t.index >= kRows) return;
    const int64_t row = row_in_block(block, t.index), head = block.index().y;
    float sum = 0.0f;
    if (row < num_rows) {
      const int64_t all = head * num_states * num_samples + first_row + row;
      if (dq.data != nullptr) sum = dq.load_nc(t, all);
      if (dlse.data != nullptr) {
        const int64_t state = head * num_states + states.at(t, t.index);
        const float whole = lse.load_nc(t, state);
        const float logit = q_given.load_nc(t, all) + log_weight.load_nc(t, first_row + row);
        // A state without any action has no gradient.
        if (whole != -INFINITY) sum += expf(logit - whole) * dlse.load_nc(t, state);
      }
      if (g.data != nullptr) g.set(t, head * num_rows + row, sum);
    }
    gradients.set(t, t.index, sum);
  }

  // acc = gradient of the last hidden layer, after its ReLU.
  template <class Block, class Gradients>
  PTR_DEVICE void from_q(const Block& block, Thread t, Accumulator& acc, Gradients& gradients) const {
    const int width = layers[num_hidden - 1].width;
    PTR_UNROLL for (int n = 0; n < kColTiles; ++n) {
      PTR_UNROLL for (int j = 0; j < 2; ++j) {
        const int col = col_of(t, n) + j;
        const float w = col < width ? last_weight.load_nc(t, block.index().y * last_weight_head + col) : 0.0f;
        PTR_UNROLL for (int m = 0; m < kRowTiles; ++m) {
          PTR_UNROLL for (int half = 0; half < 2; ++half) {
            acc[m * kColTiles + n][half * 2 + j] = gradients.at(t, row_of(t, m, half)) * w;
          }
        }
      }
    }
  }

  // One bit an element, by the thread that has it: whether its ReLU stops a gradient. That of a NaN does not.
  template <class Masks>
  PTR_DEVICE void remember(Thread t, int i, const Accumulator& acc, Masks& masks) const {
    PTR_UNROLL for (int word = 0; word < kMaskWords; ++word) {
      uint32_t bits = 0;
      PTR_UNROLL for (int bit = 0; bit < 32; ++bit) {
        const int element = word * 32 + bit;
        if (element / 4 < Accumulator::size() && acc[element / 4][element % 4] <= 0.0f) bits |= 1u << bit;
      }
      masks.set(t, (i * kMaskWords + word) * kThreads + t.index, bits);
    }
  }

  template <class Masks>
  PTR_DEVICE void forget(Thread t, int i, Accumulator& acc, Masks& masks) const {
    PTR_UNROLL for (int word = 0; word < kMaskWords; ++word) {
      const uint32_t bits = masks.at(t, (i * kMaskWords + word) * kThreads + t.index);
      PTR_UNROLL for (int bit = 0; bit < 32; ++bit) {
        const int element = word * 32 + bit;
        if (element / 4 < Accumulator::size() && (bits >> bit & 1)) acc[element / 4][element % 4] = 0.0f;
      }
    }
  }

  // A layer, as it lies in the tile, to [E, num_rows, width]; a warp writes row after row.
  template <class Block, class Tile>
  PTR_DEVICE void write(const Block& block, Thread t, Tile& tile, const Global<float>& to, int width) const {
    for (int local = t.warp(); local < kRows; local += kWarps) {
      const int64_t row = row_in_block(block, local);
      if (row >= num_rows) return;
      const int64_t at = (block.index().y * num_rows + row) * width;
      const int from = local * kRowWords + kCqlHeadUnitWords;
      for (int col = t.lane(); col < width; col += kWarp) {
        const uint32_t word = tile.at(t, from + col / Precision::kPerWord);
        to.set(t, at + col, Precision::value(word, col % Precision::kPerWord));
      }
    }
  }

  // Of the tiles of 16 rows and 8 numbers of the action a warp has one.
  PTR_HOST_DEVICE static int action_row_tile(Thread t) { return t.warp() % kRowTiles; }
  PTR_HOST_DEVICE static int action_col_tile(Thread t) { return t.warp() / kRowTiles; }

  // to_actions += gradient of layer i (in the tile) times its action weights, transposed.
  template <class Block, class Tile>
  PTR_DEVICE void multiply_to_actions(Block& block, int i, Tile& tile,
                                      PerThread<Registers<float, 4>, Block>& to_actions) const {
    const int num_units = units_of(layers[i].width), num_tiles = (num_action + 7) / 8;
#ifdef __CUDACC__
#pragma unroll 4
#endif
    for (int unit = 0; unit < num_units; ++unit) {
      PerThread<Rows16, Block> rows(block);
      PerThread<Vector<uint32_t>, Block> weights(block);
      block.each_thread([&](Thread same) {
        const Thread t = anew(same);
        rows[t] = rows_of(t, tile, action_row_tile(t), 1 + unit);
        // A warp without a tile takes another's and its sums are not written.
        const int col_tile = action_col_tile(t) < num_tiles ? action_col_tile(t) : 0;
        weights[t] = packed.load_nc_vector(t, block.index().y * head_words + layers[i].back_action + t.lane() * 4 +
                                                  (unit * num_tiles + col_tile) * kCqlHeadFragmentWords);
      });
      PTR_UNROLL for (int step = 0; step < 2; ++step) {
        Precision::mma(
            block, [&](Thread t) -> Registers<float, 4>& { return to_actions[t]; },
            [&](Thread t) { return rows[t].step(step); }, [&](Thread t) { return step_of(weights[t], step); });
      }
    }
  }

  template <class Block, class Gradients>
  PTR_DEVICE void write_actions(const Block& block, Thread t, const Registers<float, 4>& sums,
                                Gradients& gradients) const {
    const int64_t head = block.index().y;
    PTR_UNROLL for (int half = 0; half < 2; ++half) {
      const int local = row_of(t, action_row_tile(t), half);
      const int64_t row = row_in_block(block, local);
      PTR_UNROLL for (int j = 0; j < 2; ++j) {
        const int a = action_col_tile(t) * 8 + t.lane() % 4 * 2 + j;
        if (row >= num_rows || a >= num_action) continue;
        float sum = sums[half * 2 + j];
        if (last_action.data != nullptr) {
          sum += gradients.at(t, local) * last_action.load_nc(t, head * last_action_head + a);
        }
        dactions.set(t, (head * num_rows + row) * num_action + a, sum);
      }
    }
  }
};

}  // namespace ptr_fast
