// Mutates JPEG files and gives them to all that reads JPEG files: built with sanitizers by
// tests/fuzz/test_jpeg_fuzz.py.
//
//   jpeg_fuzz COUNT SEED FILE...
//
// Of every file: headers, planes, coefficients, the file with restart markers (which must have the same coefficients
// and planes), packed segments, and those decoded again after damage that the host would not have packed. Prints how
// many were taken and why the others were not; ends with 1 where something is not as it should be.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "data/jpeg_packer.h"
#include "data/jpeg_transcode.h"
#include "kernels/jpeg_frames_cpu.h"

namespace {

using namespace ptr_fast;
using Bytes = std::vector<uint8_t>;

class Mutator {
 public:
  Mutator(std::vector<Bytes> seeds, uint64_t seed) : seeds_(std::move(seeds)), random_(seed) {}

  Bytes next() {
    Bytes out = seeds_[below(seeds_.size())];
    for (uint64_t left = 1 + below(4); left > 0; --left) mutate(out);
    return out;
  }
  uint64_t below(uint64_t end) { return end == 0 ? 0 : random_() % end; }

 private:
  void mutate(Bytes& out) {
    if (out.empty()) return;
    // Half of the changes hit the headers, which are a small part of a file.
    const uint64_t reach = below(2) ? std::min<uint64_t>(out.size(), 700) : out.size();
    const uint64_t at = below(reach);
    switch (below(8)) {
      case 0:
        out[at] ^= uint8_t(1u << below(8));
        break;
      case 1:
        out[at] = uint8_t(random_());
        break;
      case 2:
        out[at] = below(2) ? 0xff : 0x00;
        break;
      case 3:
        out.resize(at);
        break;
      case 4:
        out.erase(out.begin() + at, out.begin() + std::min<uint64_t>(out.size(), at + 1 + below(16)));
        break;
      case 5:
        out.insert(out.begin() + at, 1 + below(16), uint8_t(random_()));
        break;
      case 6: {
        const Bytes other = seeds_[below(seeds_.size())];
        const uint64_t from = below(other.size()), count = std::min<uint64_t>(other.size() - from, below(200));
        out.insert(out.begin() + at, other.begin() + from, other.begin() + from + count);
        break;
      }
      default:
        for (uint64_t i = at; i < std::min<uint64_t>(out.size(), at + 8); ++i) out[i] = uint8_t(random_());
    }
  }

  std::vector<Bytes> seeds_;
  std::mt19937_64 random_;
};

Bytes planes_of(const JpegFile& file, const Bytes& data) {
  Bytes planes(file.layout.frame_bytes(), 0);
  decode_jpeg_file(file, data.data(), int64_t(data.size()), planes.data());
  return planes;
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::printf("not as it should be: %s\n", what);
  std::exit(1);
}

// Decodes the packed segments after damage to words and places: whatever they hold, nothing is read out of bounds.
void decode_damaged(const JpegFile& file, PackedFrames packed, const std::vector<uint32_t>& tables, Mutator& random) {
  const int num_segments = file.layout.num_segments();
  std::vector<int64_t> begin = {0};
  begin.insert(begin.end(), packed.segment_ends.begin(), packed.segment_ends.end());
  for (int i = 0; i < 8 && !packed.words.empty(); ++i) {
    packed.words[random.below(packed.words.size())] = uint32_t(random.below(1ull << 32));
  }
  Bytes planes(file.layout.frame_bytes());
  std::vector<uint32_t> status(num_segments);
  const int64_t index = int64_t(random.below(3)) - 1;
  const JpegPool pool{file.layout, packed.words.data(), begin.data(), packed.tables_of.data(), tables.data(), 1};
  decode_jpeg_frames(pool, &index, 1, planes.data(), status.data(), 1);
}

void try_all(const Bytes& data, Mutator& random) {
  const int64_t size = int64_t(data.size());
  const JpegFile file = read_jpeg_headers(data.data(), size);
  const Bytes planes = planes_of(file, data);
  const std::vector<int16_t> coefficients = read_jpeg_coefficients(file, data.data(), size);
  const Bytes again = add_jpeg_restarts(data.data(), size);
  const JpegFile restarts = read_jpeg_headers(again.data(), int64_t(again.size()));
  require(is_jpeg_restart(restarts), "a file that was written anew has no restart markers");
  require(read_jpeg_coefficients(restarts, again.data(), int64_t(again.size())) == coefficients,
          "a file that was written anew has other coefficients");
  require(planes_of(restarts, again) == planes, "a file that was written anew has other samples");
  JpegPacker packer(file.layout);
  const PackedFrames packed = packer.pack({{data.data(), size}}, 1);
  require(int64_t(packed.words.size()) <= packer.max_words({{data.data(), size}}), "more words than announced");
  decode_damaged(file, packed, packer.tables(), random);
}

}  // namespace

int main(int num_arguments, char** arguments) {
  if (num_arguments < 4) return std::printf("usage: jpeg_fuzz COUNT SEED FILE...\n"), 2;
  std::vector<Bytes> seeds;
  for (int i = 3; i < num_arguments; ++i) {
    std::ifstream file(arguments[i], std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    require(!seeds.back().empty(), "a seed file is empty or missing");
  }
  const long count = std::atol(arguments[1]);
  Mutator mutator(seeds, std::strtoull(arguments[2], nullptr, 10));
  for (const Bytes& seed : seeds) try_all(seed, mutator);
  std::map<std::string, long> refused;
  long taken = 0;
  for (long i = 0; i < count; ++i) {
    // An exact allocation: one byte beyond the file is one too many.
    const Bytes made = mutator.next();
    const Bytes data(made.begin(), made.end());
    try {
      try_all(data, mutator);
      ++taken;
    } catch (const std::invalid_argument& error) {
      std::string kind = error.what();
      for (char& c : kind) c = c >= '0' && c <= '9' ? '#' : c;
      while (kind.find("##") != std::string::npos) kind.erase(kind.find("##"), 1);
      ++refused[kind];
    }
  }
  std::printf("%ld mutated files of %zu, seed %s: %ld taken, %ld refused\n", count, seeds.size(), arguments[2], taken,
              count - taken);
  for (const auto& [kind, number] : refused) std::printf("%8ld  %s\n", number, kind.c_str());
  return 0;
}
