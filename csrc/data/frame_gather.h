// Copies frames of one size out of the memory-mapped parts of a store.
#pragma once
#include <cstdint>
#include <vector>

namespace ptr_fast {

// Frame `first + i` is data[offsets[i] .. offsets[i + 1]). Not owned.
struct FramePart {
  int64_t first;
  const int64_t* offsets;
  int64_t num_frames;
  const uint8_t* data;
  int64_t num_bytes;
};

class FrameGather {
 public:
  // The parts in order, without gaps, from record 0 on. Every frame's place is checked here, once, so that gather()
  // only has to check record numbers. std::invalid_argument names the part and frame.
  FrameGather(std::vector<FramePart> parts, int64_t frame_bytes);

  int64_t num_records() const { return num_records_; }
  int64_t frame_bytes() const { return frame_bytes_; }

  // out + rows[i] * frame_bytes = frame records[i]; rows may be null (0, 1, 2, ...) and must not repeat.
  // std::invalid_argument before anything is copied where a record or row is out of range.
  void gather(const int64_t* records, const int64_t* rows, int64_t n, uint8_t* out, int64_t out_rows,
              int num_threads) const;

 private:
  const uint8_t* frame(int64_t record) const;

  std::vector<FramePart> parts_;
  int64_t frame_bytes_;
  int64_t num_records_ = 0;
};

}  // namespace ptr_fast
