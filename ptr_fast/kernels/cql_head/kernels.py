"""The Triton kernels of cql_head, launched by :mod:`ptr_fast.kernels.cql_head.triton`.

A program holds a tile of rows (state, action) of one head. Of up to three hidden layers only the middle one is ever
whole: the first is made in chunks of its columns, which are what the second layer's product consumes, and the third is
made in chunks of its columns, which are what Q consumes. So no activation goes through memory in the forward pass, and
weights are read in chunks of a few tens of kilobytes. The backward pass goes the same way down and back up.

Names: R rows of a tile, P states of a program, C columns of a chunk, A the action's width padded to what a dot takes,
N a layer's width padded to a power of two. Pads are zeros, so they add nothing anywhere.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["cql_head_backward_kernel", "cql_head_forward_kernel"]


@triton.jit
def _relu(x):
    return tl.where(x < 0.0, 0.0, x)  # keeps a NaN


@triton.jit
def _affine(term, term_step, action, a_RA, states_R, rows_ok, cols, num_actions, width, HAS_ACTION):
    """A layer's share of state and action, for some of its columns."""
    ok = rows_ok[:, None] & (cols < width)[None, :]
    out = tl.load(term + states_R[:, None] * term_step + cols[None, :], mask=ok, other=0.0)
    if HAS_ACTION:
        k = tl.arange(0, a_RA.shape[1])
        ok = (k < num_actions)[:, None] & (cols < width)[None, :]
        w_AC = tl.load(action + k[:, None] * width + cols[None, :], mask=ok, other=0.0)
        out = tl.dot(a_RA, w_AC, out, input_precision="tf32")
    return out


@triton.jit
def _weights(w, rows, cols, num_rows, num_cols):
    ok = (rows < num_rows)[:, None] & (cols < num_cols)[None, :]
    return tl.load(w + rows[:, None] * num_cols + cols[None, :], mask=ok, other=0.0)


@triton.jit
def _to_action(out_RA, d_RC, action, cols, num_actions, width):
    """Adds the gradient of the actions through some columns of a layer."""
    k = tl.arange(0, out_RA.shape[1])
    ok = (cols < width)[:, None] & (k < num_actions)[None, :]
    w_CA = tl.load(action + k[None, :] * width + cols[:, None], mask=ok, other=0.0)
    return tl.dot(d_RC, w_CA, out_RA, input_precision="tf32")


@triton.jit
def _second_layer(
    s1, s1_step, a1, s2, s2_step, a2, w2, a_RA, states_R, rows_ok, num_actions,
    H1: tl.constexpr, H2: tl.constexpr, N2: tl.constexpr, C: tl.constexpr, A2: tl.constexpr,
):  # fmt: skip
    """Hidden layer 2, whole, from chunks of hidden layer 1."""
    cols = tl.arange(0, N2)
    acc = _affine(s2, s2_step, a2, a_RA, states_R, rows_ok, cols, num_actions, H2, A2)
    for start in range(0, H1, C):
        k = start + tl.arange(0, C)
        h1_RC = _relu(_affine(s1, s1_step, a1, a_RA, states_R, rows_ok, k, num_actions, H1, True))
        acc = tl.dot(h1_RC, _weights(w2, k, cols, H1, H2), acc, input_precision="tf32")
    return _relu(acc)


@triton.jit
def cql_head_forward_kernel(
    actions, log_weight, q, lse,
    s1, s2, s3, s_last, a1, a2, a3, a_last, w2, w3, w_last,
    s1_head, s2_head, s3_head, s_last_head, s1_step, s2_step, s3_step, s_last_step,
    a1_head, a2_head, a3_head, a_last_head, w2_head, w3_head, w_last_head,
    num_states, num_samples, num_actions, states_per_program,
    LAYERS: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, H3: tl.constexpr, N2: tl.constexpr,
    A2: tl.constexpr, A3: tl.constexpr, A_LAST: tl.constexpr, HAS_LSE: tl.constexpr,
    R: tl.constexpr, P: tl.constexpr, C: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Q of the states of this program and head, row tile by row tile, and their log-sum-exp on the way."""
    e = tl.program_id(1).to(tl.int64)
    first_state = tl.program_id(0) * states_per_program
    my_states = tl.minimum(states_per_program, num_states - first_state)
    s1, s2, s3, s_last = s1 + e * s1_head, s2 + e * s2_head, s3 + e * s3_head, s_last + e * s_last_head
    a1, a2, a3, a_last = a1 + e * a1_head, a2 + e * a2_head, a3 + e * a3_head, a_last + e * a_last_head
    w2, w3, w_last = w2 + e * w2_head, w3 + e * w3_head, w_last + e * w_last_head
    q += e * num_states * num_samples
    top_P = tl.full([P], -float("inf"), tl.float32)
    sum_P = tl.zeros([P], tl.float32)
    k_A = tl.arange(0, A)
    for begin in range(0, my_states * num_samples, R):
        local_R = begin + tl.arange(0, R)
        rows_ok = local_R < my_states * num_samples
        rows_R = first_state.to(tl.int64) * num_samples + local_R
        states_R = rows_R // num_samples
        ok = rows_ok[:, None] & (k_A < num_actions)[None, :]
        a_RA = tl.load(actions + rows_R[:, None] * num_actions + k_A[None, :], mask=ok, other=0.0)
        q_R = tl.load(s_last + states_R * s_last_step, mask=rows_ok, other=0.0)
        if A_LAST:
            w_A = tl.load(a_last + k_A, mask=k_A < num_actions, other=0.0)
            q_R += tl.sum(a_RA * w_A[None, :], axis=1)
        if LAYERS == 1:
            for start in range(0, H1, C):
                cols = start + tl.arange(0, C)
                h_RC = _relu(_affine(s1, s1_step, a1, a_RA, states_R, rows_ok, cols, num_actions, H1, True))
                w_C = tl.load(w_last + cols, mask=cols < H1, other=0.0)
                q_R += tl.sum(h_RC * w_C[None, :], axis=1)
        else:
            h2_RN = _second_layer(
                s1, s1_step, a1, s2, s2_step, a2, w2, a_RA, states_R, rows_ok, num_actions,
                H1, H2, N2, C, A2,
            )  # fmt: skip
            cols_N = tl.arange(0, N2)
            if LAYERS == 2:
                w_N = tl.load(w_last + cols_N, mask=cols_N < H2, other=0.0)
                q_R += tl.sum(h2_RN * w_N[None, :], axis=1)
            else:
                for start in range(0, H3, C):
                    cols = start + tl.arange(0, C)
                    acc = _affine(s3, s3_step, a3, a_RA, states_R, rows_ok, cols, num_actions, H3, A3)
                    acc = tl.dot(h2_RN, _weights(w3, cols_N, cols, H2, H3), acc, input_precision="tf32")
                    w_C = tl.load(w_last + cols, mask=cols < H3, other=0.0)
                    q_R += tl.sum(_relu(acc) * w_C[None, :], axis=1)
        tl.store(q + rows_R, q_R, mask=rows_ok)
        if HAS_LSE:
            logit_R = q_R + tl.load(log_weight + rows_R, mask=rows_ok, other=0.0)
            mine_PR = (tl.arange(0, P)[:, None] == (local_R // num_samples)[None, :]) & rows_ok[None, :]
            logit_PR = tl.where(mine_PR, logit_R[None, :], -float("inf"))
            new_top_P = tl.maximum(top_P, tl.max(logit_PR, axis=1))
            # A state that has only seen minus infinity so far, or plus infinity, counts from 0.
            base_P = tl.where(tl.abs(new_top_P) == float("inf"), 0.0, new_top_P)
            sum_P = sum_P * tl.exp(top_P - base_P) + tl.sum(tl.exp(logit_PR - base_P[:, None]), axis=1)
            top_P = new_top_P
    if HAS_LSE:
        state_P = tl.arange(0, P)
        some_P = sum_P != 0.0
        value_P = tl.where(some_P, top_P + tl.log(tl.where(some_P, sum_P, 1.0)), -float("inf"))
        tl.store(lse + e * num_states + first_state + state_P, value_P, mask=state_P < my_states)


@triton.jit
def cql_head_backward_kernel(
    actions, log_weight, q, lse, dq, dlse,
    s1, s2, s3, a1, a2, a3, a_last, w2, w3, w_last,
    g, h1, h2, h3, d1, d2, d3, dactions,
    s1_head, s2_head, s3_head, s1_step, s2_step, s3_step,
    a1_head, a2_head, a3_head, a_last_head, w2_head, w3_head, w_last_head,
    first_row, num_rows, num_states, num_samples, num_actions,
    LAYERS: tl.constexpr, H1: tl.constexpr, H2: tl.constexpr, H3: tl.constexpr, N2: tl.constexpr,
    A2: tl.constexpr, A3: tl.constexpr, A_LAST: tl.constexpr, HAS_DQ: tl.constexpr, HAS_LSE: tl.constexpr,
    STORE: tl.constexpr, TO_ACTIONS: tl.constexpr,
    R: tl.constexpr, C: tl.constexpr, A: tl.constexpr,
):  # fmt: skip
    """Rows [first_row, first_row + num_rows) of a head: g = dq and the softmax's part; with STORE every hidden layer h
    and its gradient d before the ReLU; with TO_ACTIONS the head's gradient of the actions; all ``[E, num_rows, .]``.
    """
    e = tl.program_id(1).to(tl.int64)
    local_R = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    rows_ok = local_R < num_rows
    rows_R = first_row + local_R
    states_R = rows_R // num_samples
    out_R = e * num_rows + local_R
    s1, s2, s3 = s1 + e * s1_head, s2 + e * s2_head, s3 + e * s3_head
    a1, a2, a3, a_last = a1 + e * a1_head, a2 + e * a2_head, a3 + e * a3_head, a_last + e * a_last_head
    w2, w3, w_last = w2 + e * w2_head, w3 + e * w3_head, w_last + e * w_last_head
    k_A = tl.arange(0, A)
    ok_A = rows_ok[:, None] & (k_A < num_actions)[None, :]
    a_RA = tl.load(actions + rows_R[:, None] * num_actions + k_A[None, :], mask=ok_A, other=0.0)

    g_R = tl.zeros([R], tl.float32)
    all_R = e * num_states * num_samples + rows_R
    if HAS_DQ:
        g_R += tl.load(dq + all_R, mask=rows_ok, other=0.0)
    if HAS_LSE:
        lse_R = tl.load(lse + e * num_states + states_R, mask=rows_ok, other=-float("inf"))
        logit_R = tl.load(q + all_R, mask=rows_ok, other=0.0) + tl.load(log_weight + rows_R, mask=rows_ok, other=0.0)
        some_R = lse_R != -float("inf")
        p_R = tl.where(some_R, tl.exp(logit_R - tl.where(some_R, lse_R, 0.0)), 0.0)
        g_R += p_R * tl.load(dlse + e * num_states + states_R, mask=rows_ok, other=0.0)
    if STORE:
        tl.store(g + out_R, g_R, mask=rows_ok)
    da_RA = tl.zeros([R, A], tl.float32)
    if TO_ACTIONS and A_LAST:
        w_A = tl.load(a_last + k_A, mask=k_A < num_actions, other=0.0)
        da_RA += g_R[:, None] * w_A[None, :]

    if LAYERS > 1:
        cols_N = tl.arange(0, N2)
        ok_N = rows_ok[:, None] & (cols_N < H2)[None, :]
        at_N = out_R[:, None] * H2 + cols_N[None, :]
        h2_RN = _second_layer(
            s1, s1_step, a1, s2, s2_step, a2, w2, a_RA, states_R, rows_ok, num_actions,
            H1, H2, N2, C, A2,
        )  # fmt: skip
        if LAYERS == 2:
            w_N = tl.load(w_last + cols_N, mask=cols_N < H2, other=0.0)
            d2_RN = g_R[:, None] * w_N[None, :]
        else:
            d2_RN = tl.zeros([R, N2], tl.float32)
            for start in range(0, H3, C):
                cols = start + tl.arange(0, C)
                w3_NC = _weights(w3, cols_N, cols, H2, H3)
                acc = _affine(s3, s3_step, a3, a_RA, states_R, rows_ok, cols, num_actions, H3, A3)
                h3_RC = _relu(tl.dot(h2_RN, w3_NC, acc, input_precision="tf32"))
                w_C = tl.load(w_last + cols, mask=cols < H3, other=0.0)
                d3_RC = tl.where(h3_RC <= 0.0, 0.0, g_R[:, None] * w_C[None, :])
                if STORE:
                    at = out_R[:, None] * H3 + cols[None, :]
                    ok_C = rows_ok[:, None] & (cols < H3)[None, :]
                    tl.store(h3 + at, h3_RC, mask=ok_C)
                    tl.store(d3 + at, d3_RC, mask=ok_C)
                if TO_ACTIONS and A3:
                    da_RA = _to_action(da_RA, d3_RC, a3, cols, num_actions, H3)
                d2_RN = tl.dot(d3_RC, tl.trans(w3_NC), d2_RN, input_precision="tf32")
        d2_RN = tl.where(h2_RN <= 0.0, 0.0, d2_RN)
        if STORE:
            tl.store(h2 + at_N, h2_RN, mask=ok_N)
            tl.store(d2 + at_N, d2_RN, mask=ok_N)
        if TO_ACTIONS and A2:
            da_RA = _to_action(da_RA, d2_RN, a2, cols_N, num_actions, H2)

    for start in range(0, H1, C):
        cols = start + tl.arange(0, C)
        h1_RC = _relu(_affine(s1, s1_step, a1, a_RA, states_R, rows_ok, cols, num_actions, H1, True))
        if LAYERS == 1:
            w_C = tl.load(w_last + cols, mask=cols < H1, other=0.0)
            d1_RC = g_R[:, None] * w_C[None, :]
        else:
            w2_CN = _weights(w2, cols, cols_N, H1, H2)
            zero_RC = tl.zeros([R, C], tl.float32)
            d1_RC = tl.dot(d2_RN, tl.trans(w2_CN), zero_RC, input_precision="tf32")
        d1_RC = tl.where(h1_RC <= 0.0, 0.0, d1_RC)
        if STORE:
            at = out_R[:, None] * H1 + cols[None, :]
            ok_C = rows_ok[:, None] & (cols < H1)[None, :]
            tl.store(h1 + at, h1_RC, mask=ok_C)
            tl.store(d1 + at, d1_RC, mask=ok_C)
        if TO_ACTIONS:
            da_RA = _to_action(da_RA, d1_RC, a1, cols, num_actions, H1)
    if TO_ACTIONS:
        tl.store(dactions + out_R[:, None] * num_actions + k_A[None, :], da_RA, mask=ok_A)
