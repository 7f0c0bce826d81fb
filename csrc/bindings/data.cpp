#include <memory>
#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "data/frame_gather.h"

namespace ptr_fast {
namespace {

// Keeps the arrays of its parts alive.
class BoundGather {
 public:
  BoundGather(const py::sequence& parts, int64_t frame_bytes) {
    std::vector<FramePart> views;
    for (const py::handle& item : parts) {
      const auto part = py::cast<py::tuple>(item);
      check(part.size() == 3, "parts: expected (first record, offsets, data), got a tuple of ", part.size());
      const auto offsets = exactly<int64_t>("offsets", part[1]);
      const auto data = exactly<uint8_t>("data", part[2]);
      check(offsets.ndim() == 1 && offsets.size() >= 1, "offsets: expected one axis of at least one value");
      views.push_back({py::cast<int64_t>(part[0]), offsets.data(), offsets.size() - 1, data.data(), data.size()});
      kept_.push_back(part);
    }
    gather_ = std::make_unique<FrameGather>(std::move(views), frame_bytes);
  }

  int64_t num_records() const { return gather_->num_records(); }

  void gather(const py::object& records, const py::object& rows, const py::object& out, int num_threads) const {
    check_threads(num_threads);
    const auto record_array = exactly<int64_t>("records", records);
    const int64_t n = record_array.size();
    const int64_t* row_data = nullptr;
    if (!rows.is_none()) {
      const auto row_array = exactly<int64_t>("rows", rows);
      check(row_array.size() == n, "rows: expected ", n, " values like records, got ", row_array.size());
      row_data = row_array.data();
    }
    auto pixels = exactly<uint8_t>("out", out);
    check(pixels.ndim() >= 1 && pixels.size() == pixels.shape(0) * gather_->frame_bytes(), "out: expected rows of ",
          gather_->frame_bytes(), " bytes");
    const int64_t out_rows = pixels.shape(0);
    uint8_t* const target = pixels.mutable_data();
    const int64_t* const record_data = record_array.data();
    const py::gil_scoped_release release;
    gather_->gather(record_data, row_data, n, target, out_rows, num_threads);
  }

 private:
  std::vector<py::object> kept_;
  std::unique_ptr<FrameGather> gather_;
};

}  // namespace

void bind_data(py::module_& module) {
  py::class_<BoundGather>(module, "FrameGather")
      .def(py::init<const py::sequence&, int64_t>(), py::arg("parts"), py::arg("frame_bytes"))
      .def_property_readonly("num_records", &BoundGather::num_records)
      .def("gather", &BoundGather::gather, py::arg("records"), py::arg("rows"), py::arg("out"), py::arg("num_threads"));
}

}  // namespace ptr_fast
