#include "data/jpeg_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/check.h"
#include "kernels/jpeg_frames_cpu.h"

namespace ptr_fast {
namespace {

// Row * 8 + column of the coefficients in the order of the file: T.81, figure 5.
constexpr auto kZigzag = [] {
  std::array<uint8_t, 64> places{};
  int row = 0, column = 0;
  for (int k = 0; k < 64; ++k) {
    places[k] = uint8_t(8 * row + column);
    const bool up = (row + column) % 2 == 0;
    if (up && column == 7) {
      ++row;
    } else if (up) {
      ++column;
      if (row > 0) --row;
    } else if (row == 7) {
      ++column;
    } else {
      ++row;
      if (column > 0) --column;
    }
  }
  return places;
}();

// The bytes of a file; reading behind its end is an error.
class Bytes {
 public:
  Bytes(const uint8_t* data, int64_t size) : data_(data), size_(size) {}
  int64_t at = 0;

  int64_t left() const { return size_ - at; }
  const uint8_t* take(int64_t count) {
    check(left() >= count, "the file is cut off in its headers");
    at += count;
    return data_ + at - count;
  }
  int byte() { return *take(1); }
  int word() {
    const uint8_t* const two = take(2);
    return two[0] << 8 | two[1];
  }
  // The marker that comes next; 0xff may be repeated before it.
  int marker() {
    check(byte() == 0xff, "a marker is missing in its headers");
    int code = byte();
    while (code == 0xff) code = byte();
    return code;
  }
  // The content of a marker segment.
  Bytes content() {
    const int length = word();
    check(length >= 2, "a marker has length ", length);
    return {take(length - 2), length - 2};
  }

 private:
  const uint8_t* data_;
  int64_t size_;
};

const char* name_of_frame(int marker) {
  switch (marker) {
    case 0xc1:
      return "extended sequential";
    case 0xc2:
      return "progressive";
    case 0xc3:
      return "lossless";
    case 0xc9:
      return "arithmetic-coded sequential";
    case 0xca:
      return "arithmetic-coded progressive";
    case 0xcb:
      return "arithmetic-coded lossless";
    default:
      return "hierarchical";
  }
}

struct Component {
  int id = 0, horizontal = 0, vertical = 0, quanta = 0, dc = 0, ac = 0;
};

// What the markers before the scan say.
class Headers {
 public:
  JpegFile read(const uint8_t* data, int64_t size) {
    Bytes bytes(data, size);
    check(size >= 2 && bytes.word() == 0xffd8, "not a JPEG file");
    for (;;) {
      file_.scan_header = bytes.at;
      const int marker = bytes.marker();
      check(marker != 0xd9, "the file has no picture");
      if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) check(false, "a marker stands where none may");
      Bytes content = bytes.content();
      if (marker == 0xda) {
        read_scan(content);
        file_.scan = bytes.at;
        return finish(bytes.left());
      }
      read_marker(marker, content);
    }
  }

 private:
  void read_marker(int marker, Bytes content) {
    const bool is_frame = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (marker == 0xc0) {
      read_frame(content);
    } else if (is_frame) {
      check(false, "expected a baseline JPEG, this one is ", name_of_frame(marker));
    } else if (marker == 0xc4) {
      read_huffman(content);
    } else if (marker == 0xdb) {
      read_quanta(content);
    } else if (marker == 0xdd) {
      interval_ = content.word();
    } else if (marker == 0xe0) {
      has_jfif_ |= content.left() >= 14 && std::memcmp(content.take(5), "JFIF", 5) == 0;
    } else if (marker == 0xee) {
      if (content.left() >= 12 && std::memcmp(content.take(5), "Adobe", 5) == 0) {
        content.take(6);
        adobe_transform_ = content.byte();
      }
    }
  }

  void read_frame(Bytes content) {
    check(num_components_ == 0, "expected one picture in the file, got two");
    const int bits = content.byte();
    check(bits == 8, "expected samples of 8 bits, got ", bits);
    file_.layout.height = content.word();
    file_.layout.width = content.word();
    check(file_.layout.height > 0, "its height is given behind the picture");
    check(file_.layout.width > 0 && std::max(file_.layout.height, file_.layout.width) <= kJpegMaxSide,
          "expected sides of 1 to ", kJpegMaxSide, " pixels, got ", file_.layout.height, "x", file_.layout.width);
    num_components_ = content.byte();
    check(num_components_ == 1 || num_components_ == 3, "expected a grey or a YCbCr picture, got one of ",
          num_components_, " components");
    for (int i = 0; i < num_components_; ++i) {
      Component& component = components_[i];
      component.id = content.byte();
      const int factors = content.byte();
      component.horizontal = factors >> 4;
      component.vertical = factors & 15;
      component.quanta = content.byte();
      check(component.quanta < 4, "a component names quantisation table ", component.quanta);
    }
  }

  void read_huffman(Bytes content) {
    while (content.left() > 0) {
      const int which = content.byte(), kind = which >> 4, number = which & 15;
      check(kind < 2 && number < 4, "a Huffman table has the number ", which);
      JpegHuffman table{};
      std::memcpy(table.counts, content.take(16), 16);
      const int num_symbols = table.num_symbols();
      check(num_symbols <= 256, "a Huffman table has ", num_symbols, " symbols");
      std::memcpy(table.symbols, content.take(num_symbols), num_symbols);
      int code = 0;
      for (int length = 1; length <= 16; ++length, code *= 2) {
        code += table.counts[length - 1];
        check(code <= 1 << length, "a Huffman table has more codes of ", length, " bits than there are");
      }
      huffman_[kind][number] = table;
      has_huffman_[kind][number] = true;
    }
  }

  void read_quanta(Bytes content) {
    while (content.left() > 0) {
      const int which = content.byte(), number = which & 15;
      check(which >> 4 == 0, "expected quantisation tables of 8 bits, got one of 16");
      check(number < 4, "a quantisation table has the number ", number);
      std::memcpy(quanta_[number], content.take(64), 64);
      has_quanta_[number] = true;
      for (const uint8_t quantum : quanta_[number]) check(quantum > 0, "a quantisation table has a zero");
    }
  }

  void read_scan(Bytes content) {
    check(num_components_ > 0, "the file has a scan without a frame");
    const int count = content.byte();
    check(count == num_components_, "expected one scan of all ", num_components_, " components, got one of ", count);
    for (int i = 0; i < count; ++i) {
      check(content.byte() == components_[i].id, "its scan has its components in another order than its frame");
      const int tables = content.byte();
      components_[i].dc = tables >> 4;
      components_[i].ac = tables & 15;
      check(components_[i].dc < 4 && components_[i].ac < 4, "its scan names a Huffman table that cannot be");
    }
    const int first = content.byte(), last = content.byte(), bits = content.byte();
    check(first == 0 && last == 63 && bits == 0, "its scan has a part of the coefficients only");
  }

  JpegFile finish(int64_t scan_bytes) {
    JpegLayout& layout = file_.layout;
    layout.num_components = num_components_;
    layout.horizontal = layout.vertical = 1;
    if (num_components_ == 3) {
      layout.horizontal = components_[0].horizontal;
      layout.vertical = components_[0].vertical;
      check_colours();
    }
    layout.mcus_per_segment = interval_ > 0 ? interval_ : layout.num_mcus();
    // A block takes two bits at least: what a header promises beyond that needs no memory.
    check(int64_t(layout.num_mcus()) * layout.blocks_per_mcu() <= 4 * scan_bytes, "the file is cut off in its picture");
    file_.has_restart_markers = interval_ > 0;
    for (int i = 0; i < num_components_; ++i) {
      const Component& component = components_[i];
      check(has_quanta_[component.quanta], "a quantisation table is missing");
      check(has_huffman_[0][component.dc] && has_huffman_[1][component.ac], "a Huffman table is missing");
      std::memcpy(file_.quanta[i], quanta_[component.quanta], 64);
      const int kind = i == 0 ? 0 : 1;
      check(i < 2 || (file_.dc[1] == huffman_[0][component.dc] && file_.ac[1] == huffman_[1][component.ac]),
            "its two colours have different Huffman tables");
      file_.dc[kind] = huffman_[0][component.dc];
      file_.ac[kind] = huffman_[1][component.ac];
    }
    return file_;
  }

  // That the components are YCbCr, by libjpeg's rules, in a sampling that is read.
  void check_colours() const {
    const Component* const c = components_;
    const bool is_rgb_by_id = c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B';
    const bool is_rgb = !has_jfif_ && (adobe_transform_ >= 0 ? adobe_transform_ == 0 : is_rgb_by_id);
    check(!is_rgb, "expected a grey or a YCbCr picture, got one in RGB");
    const bool is_known = c[0].horizontal >= 1 && c[0].horizontal <= 2 && c[0].vertical >= 1 && c[0].vertical <= 2 &&
                          c[1].horizontal == 1 && c[1].vertical == 1 && c[2].horizontal == 1 && c[2].vertical == 1;
    check(is_known, "expected colours sampled as 4:4:4, 4:2:2, 4:4:0 or 4:2:0, got factors ", c[0].horizontal, "x",
          c[0].vertical, ", ", c[1].horizontal, "x", c[1].vertical, ", ", c[2].horizontal, "x", c[2].vertical);
  }

  JpegFile file_{};
  Component components_[3];
  int num_components_ = 0, interval_ = 0, adobe_transform_ = -1;
  bool has_jfif_ = false;
  JpegHuffman huffman_[2][4]{};
  bool has_huffman_[2][4]{};
  uint8_t quanta_[4][64]{};
  bool has_quanta_[4]{};
};

void write_huffman(const JpegHuffman& table, uint32_t* words) {
  std::fill(words, words + kJpegHuffmanWords, 0u);
  uint32_t code = 0, place = 0;
  for (int length = 1; length <= 16; ++length, code *= 2) {
    const uint32_t count = table.counts[length - 1];
    if (length > kJpegFastBits) {
      const int at = length - kJpegFastBits - 1;
      words[kJpegLimits + at] = (code + count) << (16 - length);
      words[kJpegOffsets + at] = place - code;
    } else {
      const int free_bits = kJpegFastBits - length;
      for (uint32_t i = 0; i < count; ++i) {
        const uint32_t first = (code + i) << free_bits;
        std::fill(words + first, words + first + (1u << free_bits), uint32_t(length) << 8 | table.symbols[place + i]);
      }
    }
    code += count;
    place += count;
  }
  for (int i = 0; i < 256; ++i) words[kJpegSymbols + i] = table.symbols[i];
}

const char* why(uint32_t status) {
  switch (status) {
    case kJpegBadCode:
      return "its data holds a code that its tables do not have";
    case kJpegTooMany:
      return "a block has more than 64 coefficients";
    case kJpegTooLarge:
      return "a block has coefficients such as no picture of 8 bits has";
    default:
      return "a segment ends before its last block";
  }
}

// Takes the stuffing and the markers out of the data of the scan.
class Segments {
 public:
  Segments(const JpegFile& file, const uint8_t* data, int64_t size, uint32_t* words)
      : at_(data + file.scan), end_(data + size), words_(words), num_segments_(file.layout.num_segments()) {}

  // Writes the next segment behind the last one; ``num_bytes`` are its own, without those that fill the last word.
  int64_t next(int64_t& num_bytes) {
    num_bytes = 0;
    uint32_t word = 0;
    for (;;) {
      check(at_ < end_, "the file is cut off in its picture");
      const uint8_t byte = *at_++;
      if (byte == 0xff) {
        while (at_ < end_ && *at_ == 0xff) ++at_;
        check(at_ < end_, "the file is cut off in its picture");
        const int marker = *at_++;
        if (marker != 0) {
          end_segment(marker);
          break;
        }
      }
      word = word << 8 | byte;
      if (++num_bytes % 4 == 0) words_[num_words_++] = word;
    }
    if (num_bytes % 4 != 0) words_[num_words_++] = word << (8 * (4 - num_bytes % 4));
    ++number_;
    return num_words_;
  }

 private:
  void end_segment(int marker) const {
    if (number_ + 1 < num_segments_) {
      check(marker != 0xd9, "expected ", num_segments_, " restart segments, got ", number_ + 1);
      check(marker == 0xd0 + number_ % 8, "restart marker ", number_ % 8, " is missing or out of order");
    } else {
      check(marker != 0xda && marker != 0xc4 && marker != 0xdb && marker != 0xdd,
            "expected one scan of all components, got several");
      check(marker == 0xd9, "expected the end behind the last block, got marker ", marker);
    }
  }

  const uint8_t* at_;
  const uint8_t* const end_;
  uint32_t* const words_;
  const int num_segments_;
  int number_ = 0;
  int64_t num_words_ = 0;
};

void check_segment(uint32_t status, const JpegBits& bits, int64_t num_bytes) {
  check(status == kJpegGood, why(status));
  check(bits.used() <= num_bytes * 8, why(kJpegOutOfData));
  check(num_bytes * 8 - bits.used() < 8, "a segment goes on behind its last block");
}

// Calls each(segment, words, num_words, num_bytes) for every segment; returns the words that all take.
template <class Each>
int64_t for_segments(const JpegFile& file, const uint8_t* data, int64_t size, uint32_t* words, const Each& each) {
  Segments segments(file, data, size, words);
  int64_t begin = 0;
  for (int segment = 0; segment < file.layout.num_segments(); ++segment) {
    int64_t num_bytes = 0;
    const int64_t end = segments.next(num_bytes);
    each(segment, begin, end, num_bytes);
    begin = end;
  }
  return begin;
}

// Decodes the blocks of a segment without their transform; put(component, k, value) returns as in jpeg_block.
template <class Put>
uint32_t read_blocks(const JpegLayout& layout, int segment, const uint32_t* words, int num_words,
                     const uint32_t* tables, JpegBits& bits, const Put& put) {
  const auto word = [words](int i) { return words[i]; };
  bits.begin(num_words, word);
  int last_dc[3] = {0, 0, 0};
  const int first = segment * layout.mcus_per_segment;
  const int end = std::min(first + layout.mcus_per_segment, layout.num_mcus());
  for (int mcu = first; mcu < end; ++mcu) {
    for (int block = 0; block < layout.blocks_per_mcu(); ++block) {
      const int component = layout.component(block), kind = component == 0 ? 0 : 1;
      const uint32_t* const dc = tables + kind * kJpegHuffmanWords;
      const uint32_t* const ac = tables + (2 + kind) * kJpegHuffmanWords;
      const uint32_t status = jpeg_block(
          bits, word, [dc](uint32_t i) { return dc[i]; }, [ac](uint32_t i) { return ac[i]; }, last_dc[component],
          [&](int k, int value) {
            const int scaled = value * int(tables[kJpegQuanta + 64 * component + k] & 0xffff);
            put(mcu * int64_t(layout.blocks_per_mcu()) + block, k, value);
            return scaled < 0 ? -scaled : scaled;
          });
      if (status != kJpegGood) return status;
    }
    if (bits.is_past_the_end()) return kJpegOutOfData;
  }
  return kJpegGood;
}

}  // namespace

JpegFile read_jpeg_headers(const uint8_t* data, int64_t size) { return Headers().read(data, size); }

void write_jpeg_tables(const JpegFile& file, uint32_t* tables) {
  write_huffman(file.dc[0], tables);
  write_huffman(file.dc[1], tables + kJpegHuffmanWords);
  write_huffman(file.ac[0], tables + 2 * kJpegHuffmanWords);
  write_huffman(file.ac[1], tables + 3 * kJpegHuffmanWords);
  for (int component = 0; component < 3; ++component) {
    for (int k = 0; k < 64; ++k) {
      tables[kJpegQuanta + 64 * component + k] = uint32_t(kZigzag[k]) << 16 | file.quanta[component][k];
    }
  }
}

int64_t pack_jpeg(const JpegFile& file, const uint8_t* data, int64_t size, uint32_t* words, int64_t* ends) {
  std::vector<uint32_t> tables(kJpegTableWords);
  write_jpeg_tables(file, tables.data());
  return for_segments(file, data, size, words, [&](int segment, int64_t begin, int64_t end, int64_t num_bytes) {
    JpegBits bits;
    const auto ignore = [](int64_t, int, int) {};
    const uint32_t status =
        read_blocks(file.layout, segment, words + begin, int(end - begin), tables.data(), bits, ignore);
    check_segment(status, bits, num_bytes);
    ends[segment] = end;
  });
}

void decode_jpeg_file(const JpegFile& file, const uint8_t* data, int64_t size, uint8_t* planes) {
  std::vector<uint32_t> tables(kJpegTableWords), words(max_jpeg_words(file, size));
  write_jpeg_tables(file, tables.data());
  for_segments(file, data, size, words.data(), [&](int segment, int64_t begin, int64_t end, int64_t num_bytes) {
    JpegBits bits;
    const uint32_t status =
        decode_jpeg_segment(file.layout, segment, words.data() + begin, int(end - begin), tables.data(), bits, planes);
    check_segment(status, bits, num_bytes);
  });
}

std::vector<int16_t> read_jpeg_coefficients(const JpegFile& file, const uint8_t* data, int64_t size) {
  const JpegLayout& layout = file.layout;
  const int64_t num_blocks = int64_t(layout.num_mcus()) * layout.blocks_per_mcu();
  std::vector<uint32_t> tables(kJpegTableWords), words(max_jpeg_words(file, size));
  std::vector<int16_t> coefficients(num_blocks * 64);
  write_jpeg_tables(file, tables.data());
  for_segments(file, data, size, words.data(), [&](int segment, int64_t begin, int64_t end, int64_t num_bytes) {
    JpegBits bits;
    const auto put = [&](int64_t block, int k, int value) { coefficients[block * 64 + k] = int16_t(value); };
    const uint32_t status =
        read_blocks(layout, segment, words.data() + begin, int(end - begin), tables.data(), bits, put);
    check_segment(status, bits, num_bytes);
  });
  return coefficients;
}

}  // namespace ptr_fast
