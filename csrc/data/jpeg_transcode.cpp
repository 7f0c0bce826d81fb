#include "data/jpeg_transcode.h"

#include <algorithm>
#include <array>
#include <bit>

#include "core/check.h"
#include "data/jpeg_standard_tables.h"

namespace ptr_fast {
namespace {

// Code and length of each symbol; length 0: the table does not have it.
struct Codes {
  uint16_t code[256] = {};
  uint8_t length[256] = {};
};

Codes codes_of(const JpegHuffman& table) {
  Codes codes;
  int code = 0, place = 0;
  for (int length = 1; length <= 16; ++length, code *= 2) {
    for (int i = 0; i < table.counts[length - 1]; ++i, ++code, ++place) {
      codes.code[table.symbols[place]] = uint16_t(code);
      codes.length[table.symbols[place]] = uint8_t(length);
    }
  }
  return codes;
}

class BitWriter {
 public:
  explicit BitWriter(std::vector<uint8_t>& out) : out_(out) {}

  void put(uint32_t value, int count) {
    bits_ = bits_ << count | value;
    for (count_ += count; count_ >= 8; count_ -= 8) byte(uint8_t(bits_ >> (count_ - 8)));
  }
  // Ones up to the end of the byte.
  void finish() {
    if (count_ > 0) put((1u << (8 - count_)) - 1, 8 - count_);
  }

 private:
  void byte(uint8_t value) {
    out_.push_back(value);
    if (value == 0xff) out_.push_back(0);
  }

  std::vector<uint8_t>& out_;
  uint64_t bits_ = 0;
  int count_ = 0;
};

void put_symbol(BitWriter& bits, const Codes& codes, int symbol, int value, int size) {
  check(codes.length[symbol] > 0, "a coefficient is larger than baseline JPEG has it");
  bits.put(codes.code[symbol], codes.length[symbol]);
  if (size > 0) bits.put(uint32_t(value < 0 ? value + (1 << size) - 1 : value), size);
}

int size_of(int value) { return std::bit_width(uint32_t(value < 0 ? -value : value)); }

void put_block(BitWriter& bits, const int16_t* coefficients, int& last_dc, const Codes& dc, const Codes& ac) {
  const int difference = coefficients[0] - last_dc;
  last_dc = coefficients[0];
  const int dc_size = size_of(difference);
  check(dc_size <= 11, "a coefficient is larger than baseline JPEG has it");
  put_symbol(bits, dc, dc_size, difference, dc_size);
  int zeros = 0;
  for (int k = 1; k < 64; ++k) {
    if (coefficients[k] == 0) {
      ++zeros;
      continue;
    }
    for (; zeros > 15; zeros -= 16) put_symbol(bits, ac, 0xf0, 0, 0);
    const int size = size_of(coefficients[k]);
    put_symbol(bits, ac, zeros << 4 | size, coefficients[k], size);
    zeros = 0;
  }
  if (zeros > 0) put_symbol(bits, ac, 0, 0, 0);
}

void put_marker(std::vector<uint8_t>& out, uint8_t marker) {
  out.push_back(0xff);
  out.push_back(marker);
}

void put_word(std::vector<uint8_t>& out, int word) {
  out.push_back(uint8_t(word >> 8));
  out.push_back(uint8_t(word));
}

void put_tables(std::vector<uint8_t>& out, const JpegHuffman& table, int which) {
  put_marker(out, 0xc4);
  put_word(out, 2 + 1 + 16 + table.num_symbols());
  out.push_back(uint8_t(which));
  out.insert(out.end(), table.counts, table.counts + 16);
  out.insert(out.end(), table.symbols, table.symbols + table.num_symbols());
}

// The markers before the scan but Huffman tables and the restart interval.
void put_kept_markers(std::vector<uint8_t>& out, const JpegFile& file, const uint8_t* data) {
  put_marker(out, 0xd8);
  for (int64_t at = 2; at < file.scan_header;) {
    while (data[at + 1] == 0xff) ++at;
    const int64_t end = at + 2 + (data[at + 2] << 8 | data[at + 3]);
    if (data[at + 1] != 0xc4 && data[at + 1] != 0xdd) out.insert(out.end(), data + at, data + end);
    at = end;
  }
}

// The header of the scan with tables 0 for luma and 1 for the colours.
void put_scan_header(std::vector<uint8_t>& out, const JpegFile& file, const uint8_t* data) {
  const int num_components = file.layout.num_components;
  const uint8_t* const components = data + file.scan - 3 - 2 * num_components;  // id and tables of each
  put_marker(out, 0xda);
  put_word(out, 6 + 2 * num_components);
  out.push_back(uint8_t(num_components));
  for (int i = 0; i < num_components; ++i) {
    out.push_back(components[2 * i]);
    out.push_back(i == 0 ? 0x00 : 0x11);
  }
  out.insert(out.end(), {0, 63, 0});
}

bool has_standard_tables(const JpegFile& file) {
  const bool luma = file.dc[0] == kJpegLumaDc && file.ac[0] == kJpegLumaAc;
  return luma && (file.layout.num_components == 1 || (file.dc[1] == kJpegColourDc && file.ac[1] == kJpegColourAc));
}

}  // namespace

bool is_jpeg_restart(const JpegFile& file) {
  return file.has_restart_markers && file.layout.mcus_per_segment == file.layout.mcus_per_row() &&
         has_standard_tables(file);
}

std::vector<uint8_t> add_jpeg_restarts(const uint8_t* data, int64_t size) {
  const JpegFile file = read_jpeg_headers(data, size);
  const std::vector<int16_t> coefficients = read_jpeg_coefficients(file, data, size);
  if (is_jpeg_restart(file)) return {data, data + size};
  const JpegLayout& layout = file.layout;
  const Codes dc[2] = {codes_of(kJpegLumaDc), codes_of(kJpegColourDc)};
  const Codes ac[2] = {codes_of(kJpegLumaAc), codes_of(kJpegColourAc)};
  std::vector<uint8_t> out;
  out.reserve(size + size / 16 + 1024);
  put_kept_markers(out, file, data);
  for (int kind = 0; kind < std::min(2, layout.num_components); ++kind) {
    put_tables(out, kind == 0 ? kJpegLumaDc : kJpegColourDc, kind);
    put_tables(out, kind == 0 ? kJpegLumaAc : kJpegColourAc, 0x10 | kind);
  }
  put_marker(out, 0xdd);
  put_word(out, 4);
  put_word(out, layout.mcus_per_row());
  put_scan_header(out, file, data);
  const int16_t* block = coefficients.data();
  for (int mcu = 0; mcu < layout.num_mcus();) {
    BitWriter bits(out);
    int last_dc[3] = {0, 0, 0};
    const int end = mcu + layout.mcus_per_row();
    for (; mcu < end; ++mcu) {
      for (int i = 0; i < layout.blocks_per_mcu(); ++i, block += 64) {
        const int component = layout.component(i), kind = component == 0 ? 0 : 1;
        put_block(bits, block, last_dc[component], dc[kind], ac[kind]);
      }
    }
    bits.finish();
    const int row = mcu / layout.mcus_per_row() - 1;
    put_marker(out, mcu < layout.num_mcus() ? uint8_t(0xd0 + row % 8) : 0xd9);
  }
  return out;
}

}  // namespace ptr_fast
