#include <utility>
#include <vector>

#include "bindings/arrays.h"
#include "bindings/jpeg_layout.h"
#include "data/jpeg_packer.h"
#include "data/jpeg_transcode.h"
#include "kernels/jpeg_frames_cpu.h"

namespace ptr_fast {
namespace {

// Keeps the buffer while its bytes are read.
class Bytes {
 public:
  explicit Bytes(const py::handle& object) : info_(py::reinterpret_borrow<py::buffer>(checked(object)).request()) {
    check(info_.ndim == 1 && info_.itemsize == 1 && (info_.size <= 1 || info_.strides[0] == 1),
          "JPEG file: expected contiguous bytes");
  }
  ByteView view() const { return {static_cast<const uint8_t*>(info_.ptr), int64_t(info_.size)}; }

 private:
  static const py::handle& checked(const py::handle& object) {
    check(PyObject_CheckBuffer(object.ptr()) != 0, "JPEG file: expected bytes, got another object");
    return object;
  }
  py::buffer_info info_;
};

template <class T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(py::ssize_t(values.size()), values.data());
}

py::tuple tuple_of(const JpegLayout& layout) {
  return py::make_tuple(layout.height, layout.width, layout.num_components, layout.horizontal, layout.vertical,
                        layout.mcus_per_segment);
}

py::tuple describe(const py::object& data) {
  const Bytes bytes(data);
  const JpegFile file = read_jpeg_headers(bytes.view().data, bytes.view().size);
  return py::make_tuple(tuple_of(file.layout), is_jpeg_restart(file));
}

py::bytes add_restarts(const py::object& data) {
  const Bytes bytes(data);
  std::vector<uint8_t> out;
  {
    const py::gil_scoped_release release;
    out = add_jpeg_restarts(bytes.view().data, bytes.view().size);
  }
  return {reinterpret_cast<const char*>(out.data()), out.size()};
}

py::array_t<uint8_t> planes(const py::object& data) {
  const Bytes bytes(data);
  const auto [from, size] = bytes.view();
  const JpegFile file = read_jpeg_headers(from, size);
  py::array_t<uint8_t> out(file.layout.frame_bytes());
  uint8_t* const to = out.mutable_data();
  const py::gil_scoped_release release;
  decode_jpeg_file(file, from, size, to);
  return out;
}

py::array_t<int16_t> coefficients(const py::object& data) {
  const Bytes bytes(data);
  const auto [from, size] = bytes.view();
  return array_of(read_jpeg_coefficients(read_jpeg_headers(from, size), from, size));
}

std::vector<Bytes> kept(const py::sequence& files) {
  std::vector<Bytes> all;
  all.reserve(files.size());
  for (const py::handle& file : files) all.emplace_back(file);
  return all;
}

std::vector<ByteView> views(const std::vector<Bytes>& files) {
  std::vector<ByteView> all;
  for (const Bytes& file : files) all.push_back(file.view());
  return all;
}

int64_t max_words(const JpegPacker& packer, const py::sequence& files) {
  const std::vector<Bytes> held = kept(files);
  return packer.max_words(views(held));
}

py::tuple pack_files(JpegPacker& packer, const py::sequence& files, int num_threads) {
  check_threads(num_threads);
  const std::vector<Bytes> held = kept(files);
  PackedFrames packed;
  {
    const py::gil_scoped_release release;
    packed = packer.pack(views(held), num_threads);
  }
  return py::make_tuple(array_of(packed.words).view("int32"), array_of(packed.segment_ends),
                        array_of(packed.tables_of));
}

void check_pool(const JpegPool& pool, int64_t num_begins, int64_t num_words, int64_t table_words) {
  check(num_begins == pool.num_frames * pool.layout.num_segments() + 1, "segment_begin: expected ",
        pool.num_frames * pool.layout.num_segments() + 1, " numbers, got ", num_begins);
  check(table_words % kJpegTableWords == 0, "tables: expected sets of ", kJpegTableWords, " words, got ", table_words);
  for (int64_t i = 0; i < num_begins; ++i) {
    const int64_t begin = pool.segment_begin[i], least = i == 0 ? 0 : pool.segment_begin[i - 1];
    check(begin >= least && begin <= num_words, "segment_begin[", i, "]: expected ", least, " to ", num_words, ", got ",
          begin);
  }
  for (int64_t i = 0; i < pool.num_frames; ++i) {
    check(pool.tables_of[i] < table_words / kJpegTableWords, "tables_of[", i, "]: expected less than ",
          table_words / kJpegTableWords, ", got ", int(pool.tables_of[i]));
  }
}

// A pool in arrays that Python holds, checked once.
class BoundPool {
 public:
  BoundPool(const py::tuple& layout, const py::object& words, const py::object& segment_begin,
            const py::object& tables_of, const py::object& tables)
      : kept_(py::make_tuple(words, segment_begin, tables_of, tables)) {
    const auto word_array = exactly<int32_t>("words", words), table_array = exactly<int32_t>("tables", tables);
    const auto begin_array = exactly<int64_t>("segment_begin", segment_begin);
    const auto set_array = exactly<uint8_t>("tables_of", tables_of);
    pool_ = {layout_of(layout), reinterpret_cast<const uint32_t*>(word_array.data()),  begin_array.data(),
             set_array.data(),  reinterpret_cast<const uint32_t*>(table_array.data()), int64_t(set_array.size())};
    check(pool_.num_frames > 0, "tables_of: expected at least one frame");
    check_pool(pool_, begin_array.size(), word_array.size(), table_array.size());
  }

  void decode(const py::object& index, const py::object& planes, const py::object& status, int num_threads) const {
    check_threads(num_threads);
    const auto index_array = exactly<int64_t>("index", index);
    auto plane_array = exactly<uint8_t>("planes", planes);
    auto status_array = exactly<int32_t>("status", status);
    const int64_t n = index_array.size();
    check(plane_array.size() == n * pool_.layout.frame_bytes(), "planes: expected ", n, " frames of ",
          pool_.layout.frame_bytes(), " bytes, got ", plane_array.size(), " bytes");
    check(status_array.size() == n * pool_.layout.num_segments(), "status: expected ", n * pool_.layout.num_segments(),
          " numbers, got ", status_array.size());
    const int64_t* const from = index_array.data();
    uint8_t* const to = plane_array.mutable_data();
    auto* const states = reinterpret_cast<uint32_t*>(status_array.mutable_data());
    const py::gil_scoped_release release;
    decode_jpeg_frames(pool_, from, n, to, states, num_threads);
  }

 private:
  py::tuple kept_;
  JpegPool pool_;
};

}  // namespace

void bind_jpeg_frames(py::module_& module) {
  module.def("jpeg_describe", &describe, py::arg("data"));
  module.def("jpeg_add_restarts", &add_restarts, py::arg("data"));
  module.def("jpeg_planes", &planes, py::arg("data"));
  module.def("jpeg_coefficients", &coefficients, py::arg("data"));
  py::class_<JpegPacker>(module, "JpegPacker")
      .def(py::init([](const py::tuple& layout) { return JpegPacker(layout_of(layout)); }), py::arg("layout"))
      .def("max_words", &max_words, py::arg("files"))
      .def("pack", &pack_files, py::arg("files"), py::arg("num_threads"))
      .def("tables", [](const JpegPacker& packer) { return array_of(packer.tables()).view("int32"); });
  py::class_<BoundPool>(module, "JpegPool")
      .def(py::init<const py::tuple&, const py::object&, const py::object&, const py::object&, const py::object&>(),
           py::arg("layout"), py::arg("words"), py::arg("segment_begin"), py::arg("tables_of"), py::arg("tables"))
      .def("decode", &BoundPool::decode, py::arg("index"), py::arg("planes"), py::arg("status"),
           py::arg("num_threads"));
}

}  // namespace ptr_fast
