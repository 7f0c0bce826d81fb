#include "data/frame_gather.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "core/parallel.h"

namespace ptr_fast {

FrameGather::FrameGather(std::vector<FramePart> parts, int64_t frame_bytes)
    : parts_(std::move(parts)), frame_bytes_(frame_bytes) {
  check(frame_bytes > 0, "frame_bytes: expected a positive number, got ", frame_bytes);
  for (const FramePart& part : parts_) {
    check(part.first == num_records_, "parts: expected a part that begins at record ", num_records_, ", got ",
          part.first);
    for (int64_t i = 0; i < part.num_frames; ++i) {
      const int64_t begin = part.offsets[i], size = part.offsets[i + 1] - begin;
      check(size == frame_bytes_, "record ", part.first + i, ": expected a frame of ", frame_bytes_, " bytes, got ",
            size);
      check(begin >= 0 && begin <= part.num_bytes - frame_bytes_, "record ", part.first + i, ": byte ", begin,
            " is outside the ", part.num_bytes, " bytes of its part");
    }
    num_records_ += part.num_frames;
  }
}

const uint8_t* FrameGather::frame(int64_t record) const {
  const auto after = std::upper_bound(parts_.begin(), parts_.end(), record,
                                      [](int64_t value, const FramePart& part) { return value < part.first; });
  const FramePart& part = *(after - 1);
  return part.data + part.offsets[record - part.first];
}

void FrameGather::gather(const int64_t* records, const int64_t* rows, int64_t n, uint8_t* out, int64_t out_rows,
                         int num_threads) const {
  check(rows != nullptr || n <= out_rows, "out: expected room for ", n, " frames, got ", out_rows);
  for (int64_t i = 0; i < n; ++i) {
    check(records[i] >= 0 && records[i] < num_records_, "records[", i, "]: expected 0 to ", num_records_ - 1, ", got ",
          records[i]);
    check(rows == nullptr || (rows[i] >= 0 && rows[i] < out_rows), "rows[", i, "]: expected 0 to ", out_rows - 1,
          ", got ", rows ? rows[i] : 0);
  }
  // A thread is worth waking for some hundred kilobytes; a page that is not in memory costs far more than that.
  constexpr int64_t kBytesPerItem = 1 << 18;
  const int64_t per_item = std::max<int64_t>(1, kBytesPerItem / frame_bytes_);
  parallel_for((n + per_item - 1) / per_item, num_threads, [&](int64_t item) {
    const int64_t end = std::min(n, (item + 1) * per_item);
    for (int64_t i = item * per_item; i < end; ++i) {
      std::memcpy(out + (rows ? rows[i] : i) * frame_bytes_, frame(records[i]), frame_bytes_);
    }
  });
}

}  // namespace ptr_fast
