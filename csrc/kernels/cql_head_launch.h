// From a call of cql_head_cuda.h to kernels of cql_head_*block.h and their grids. ``launch(kernel, grid)`` runs one: on
// a GPU (cql_head.cu), or in the emulator of the tests.
#pragma once
#include "core/check.h"
#include "kernels/cql_head_block.h"
#include "kernels/cql_head_cuda.h"
#include "kernels/cql_head_log_sum_exp_block.h"

namespace ptr_fast {

// Where in a head's packed weights each layer's begin, and how wide they are.
struct CqlHeadPlan {
  int width;  // all hidden layers are padded to it: 128 or 256
  std::vector<int64_t> forward, back, back_action;
  int64_t words;
};

inline int cql_head_units(const CqlHeadCudaCall& call, int num_k) {
  const int unit = kCqlHeadUnitWords * (call.products == CqlHeadProducts::kBf16 ? 2 : 1);
  return (num_k + unit - 1) / unit;
}

inline CqlHeadPlan cql_head_plan(const CqlHeadCudaCall& call) {
  const int num_hidden = int(call.layers.size()) - 1;
  check(num_hidden >= 1 && num_hidden <= kCqlHeadMaxHidden, "cql_head: expected 1 to ", kCqlHeadMaxHidden,
        " hidden layers, got ", num_hidden);
  check(call.A >= 1 && call.A <= kCqlHeadMaxAction, "cql_head: expected actions of 1 to ", kCqlHeadMaxAction,
        " dimensions, got ", call.A);
  int widest = 0;
  for (int i = 0; i < num_hidden; ++i) widest = call.layers[i].width > widest ? call.layers[i].width : widest;
  check(widest <= kCqlHeadMaxWidth, "cql_head: expected hidden layers of ", kCqlHeadMaxWidth, " at most, got ", widest);
  check(call.B * kCqlHeadMaxWidth < int64_t(1) << 31, "cql_head: expected fewer states, got ", call.B);
  CqlHeadPlan plan{widest <= 128 ? 128 : 256, {}, {}, {}, 0};
  const auto reserve = [&](int num_units, int num_tiles) {
    const int64_t at = plan.words;
    plan.words += int64_t(num_units) * num_tiles * kCqlHeadFragmentWords;
    return at;
  };
  for (int i = 0; i < num_hidden; ++i) {
    const int hidden_units = i > 0 ? cql_head_units(call, call.layers[i - 1].width) : 0;
    plan.forward.push_back(reserve((call.layers[i].action ? 1 : 0) + hidden_units, plan.width / 8));
  }
  for (int i = 0; i < num_hidden; ++i) {
    const int units = cql_head_units(call, call.layers[i].width);
    plan.back.push_back(i > 0 ? reserve(units, plan.width / 8) : 0);
    plan.back_action.push_back(call.layers[i].action ? reserve(units, (int(call.A) + 7) / 8) : 0);
  }
  return plan;
}

template <class Precision>
CqlHeadPack<Precision> cql_head_pack(const CqlHeadCudaCall& call, const CqlHeadPlan& plan, bool with_back) {
  CqlHeadPack<Precision> pack{};
  const int num_hidden = int(call.layers.size()) - 1, A = int(call.A);
  const int64_t E = call.E;
  const auto add = [&](const float* from, int64_t head_stride, int rows, int cols, bool transposed, int num_units,
                       int num_tiles, int64_t to) {
    CqlHeadMatrix& matrix = pack.matrices[pack.num_matrices++];
    matrix = {{from, (E - 1) * head_stride + int64_t(rows) * cols},
              head_stride,
              transposed ? 1 : cols,
              transposed ? cols : 1,
              transposed ? cols : rows,
              transposed ? rows : cols,
              num_units,
              num_tiles,
              to,
              pack.num_vectors};
    pack.num_vectors += num_units * num_tiles * kWarp;
  };
  const int tiles = plan.width / 8, action_tiles = (A + 7) / 8;
  for (int i = 0; i < num_hidden; ++i) {
    const CqlHeadCudaLayer& layer = call.layers[i];
    const int units = cql_head_units(call, layer.width), before = i > 0 ? call.layers[i - 1].width : 0;
    int64_t to = plan.forward[i];
    if (layer.action) {
      add(layer.action, layer.action_head, A, layer.width, false, 1, tiles, to);
      to += int64_t(tiles) * kCqlHeadFragmentWords;
      if (with_back) {
        add(layer.action, layer.action_head, A, layer.width, true, units, action_tiles, plan.back_action[i]);
      }
    }
    if (i > 0) {
      add(layer.hidden, layer.hidden_head, before, layer.width, false, cql_head_units(call, before), tiles, to);
      if (with_back) add(layer.hidden, layer.hidden_head, before, layer.width, true, units, tiles, plan.back[i]);
    }
  }
  pack.head_words = plan.words;
  pack.packed = {call.packed, E * plan.words};
  return pack;
}

// What both passes over rows share.
template <class Kernel>
Kernel cql_head_rows(const CqlHeadCudaCall& call, const CqlHeadPlan& plan, int64_t first_row, int64_t num_rows) {
  Kernel rows{};
  const int64_t E = call.E, B = call.B, K = call.K, A = call.A;
  const int num_hidden = int(call.layers.size()) - 1;
  const auto term = [&](const CqlHeadCudaLayer& layer) {
    CqlHeadTerm out{};
    out.term = {layer.term, (E - 1) * layer.term_head + (B - 1) * layer.term_state + layer.width};
    out.head_stride = layer.term_head, out.state_stride = int(layer.term_state);
    out.width = layer.width, out.has_action = layer.action != nullptr;
    out.h = {layer.h, layer.h ? E * num_rows * layer.width : 0};
    out.d = {layer.d, layer.d ? E * num_rows * layer.width : 0};
    return out;
  };
  for (int i = 0; i < num_hidden; ++i) {
    rows.layers[i] = term(call.layers[i]);
    rows.layers[i].forward = plan.forward[i];
    rows.layers[i].back = plan.back[i], rows.layers[i].back_action = plan.back_action[i];
  }
  const CqlHeadCudaLayer& last = call.layers[num_hidden];
  rows.last = term(last);
  rows.num_hidden = num_hidden, rows.num_action = int(A);
  rows.num_states = B, rows.num_samples = K, rows.first_row = first_row, rows.num_rows = num_rows;
  rows.head_words = plan.words;
  rows.actions = {call.actions, B * K * A};
  rows.packed = {call.packed, E * plan.words};
  rows.last_weight_head = last.hidden_head, rows.last_action_head = last.action_head;
  rows.last_weight = {last.hidden, (E - 1) * last.hidden_head + call.layers[num_hidden - 1].width};
  rows.last_action = {last.action, last.action ? (E - 1) * last.action_head + A : 0};
  return rows;
}

inline int cql_head_blocks(int64_t count, int each) {
  const int64_t blocks = (count + each - 1) / each;
  check(blocks < int64_t(1) << 31, "cql_head: expected fewer rows, got ", count);
  return int(blocks);
}

template <class Precision, int kWidth, class Launch>
void cql_head_forward_rows(const CqlHeadCudaForward& op, const CqlHeadPlan& plan, Launch& launch) {
  using Kernel = CqlHeadRows<Precision, kWidth, false>;
  Kernel rows = cql_head_rows<Kernel>(op, plan, 0, op.B * op.K);
  rows.q = {op.q, op.E * op.B * op.K};
  launch(rows, Index3{cql_head_blocks(op.B * op.K, Kernel::kRows), int(op.E), 1});
}

template <class Precision, int kWidth, class Launch>
void cql_head_backward_rows(const CqlHeadCudaBackward& op, const CqlHeadPlan& plan, Launch& launch) {
  using Kernel = CqlHeadRows<Precision, kWidth, true>;
  Kernel rows = cql_head_rows<Kernel>(op, plan, op.first_row, op.num_rows);
  const int64_t E = op.E, num_q = op.E * op.B * op.K;
  if (op.dq) rows.dq = {op.dq, num_q};
  if (op.dlse) {
    rows.log_weight = {op.log_weight, op.B * op.K};
    rows.q_given = {op.q, num_q};
    rows.lse = {op.lse, E * op.B};
    rows.dlse = {op.dlse, E * op.B};
  }
  if (op.g) rows.g = {op.g, E * op.num_rows};
  if (op.dactions) rows.dactions = {op.dactions, E * op.num_rows * op.A};
  launch(rows, Index3{cql_head_blocks(op.num_rows, Kernel::kRows), int(E), 1});
}

// Packs the weights, then Q of all rows, then the log-sum-exp where it is wanted.
template <class Launch>
void cql_head_forward_on(const CqlHeadCudaForward& op, Launch&& launch) {
  const CqlHeadPlan plan = cql_head_plan(op);
  const auto packed = [&](auto precision) {
    using Precision = decltype(precision);
    const auto pack = cql_head_pack<Precision>(op, plan, op.with_back);
    launch(pack, Index3{cql_head_blocks(pack.num_vectors, pack.kThreads), int(op.E), 1});
    if (plan.width == 128) {
      cql_head_forward_rows<Precision, 128>(op, plan, launch);
    } else {
      cql_head_forward_rows<Precision, 256>(op, plan, launch);
    }
  };
  op.products == CqlHeadProducts::kBf16 ? packed(CqlHeadBf16{}) : packed(CqlHeadTf32{});
  if (op.lse == nullptr) return;
  CqlHeadLogSumExp sum{};
  sum.num_all = op.E * op.B, sum.num_states = op.B, sum.num_samples = op.K;
  sum.q = {op.q, op.E * op.B * op.K};
  sum.log_weight = {op.log_weight, op.B * op.K};
  sum.lse = {op.lse, op.E * op.B};
  launch(sum, Index3{cql_head_blocks(sum.num_all, CqlHeadLogSumExp::kStates), 1, 1});
}

// ``op.packed`` is what the forward pass packed, with_back.
template <class Launch>
void cql_head_backward_on(const CqlHeadCudaBackward& op, Launch&& launch) {
  const CqlHeadPlan plan = cql_head_plan(op);
  const auto rows = [&](auto precision) {
    using Precision = decltype(precision);
    if (plan.width == 128) {
      cql_head_backward_rows<Precision, 128>(op, plan, launch);
    } else {
      cql_head_backward_rows<Precision, 256>(op, plan, launch);
    }
  };
  op.products == CqlHeadProducts::kBf16 ? rows(CqlHeadBf16{}) : rows(CqlHeadTf32{});
}

}  // namespace ptr_fast
