// Who read and wrote each element of a memory, for the host Block: finds what is not separated by a barrier.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/check.h"

namespace ptr_fast {

// What a kernel did wrong on the host Block.
struct BlockError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One access: which thread of the launch, and between which barriers. Phases are counted by barriers of the block,
// epochs by barriers of the cluster; both are counted for all blocks of a cluster together.
struct Access {
  int32_t cluster = -1;  // -1: there was none
  int32_t rank = 0;
  int32_t thread = 0;
  uint32_t phase = 0;
  uint32_t epoch = 0;

  bool same_thread(const Access& other) const {
    return cluster == other.cluster && rank == other.rank && thread == other.thread;
  }
  bool same_block(const Access& other) const { return cluster == other.cluster && rank == other.rank; }

  // Whether nothing says which of two accesses comes first.
  bool races_with(const Access& other) const {
    if (cluster < 0 || other.cluster < 0) return false;
    if (cluster != other.cluster) return true;
    if (rank != other.rank) return epoch == other.epoch;
    return thread != other.thread && phase == other.phase;
  }
};

class AccessLog {
 public:
  AccessLog(std::string name, int64_t count) : name_(std::move(name)), elements_(count) {}

  int64_t size() const { return int64_t(elements_.size()); }

  void read(int64_t i, const Access& by) {
    Element& element = check_element(i, by, "reads");
    if (element.in_flight) fail(i, by, "reads what a copy brings that nobody has waited for", nullptr);
    if (element.write.races_with(by)) fail(i, by, "reads what is written in the same phase by", &element.write);
    if (!element.read.same_block(by)) element.read_by_other_block = element.read;
    if (!element.read.same_thread(by)) element.read_by_other_thread = element.read;
    element.read = by;
  }

  void write(int64_t i, const Access& by) {
    Element& element = check_element(i, by, "writes");
    if (element.in_flight) fail(i, by, "writes where a copy arrives that nobody has waited for", nullptr);
    check_write(element, i, by);
    element.write = by;
  }

  // A copy is sent to the element, and has arrived.
  void sent(int64_t i, const Access& by) {
    Element& element = check_element(i, by, "copies to");
    if (element.in_flight) fail(i, by, "copies to where another copy arrives", nullptr);
    check_write(element, i, by);
    element.in_flight = true;
  }
  void arrived(int64_t i, const Access& by) {
    elements_[i].in_flight = false;
    elements_[i].write = by;
  }

 private:
  struct Element {
    Access write, read, read_by_other_thread, read_by_other_block;
    bool in_flight = false;
  };

  Element& check_element(int64_t i, const Access& by, const char* does) {
    if (i < 0 || i >= size()) {
      throw BlockError(text(name_, ": ", who(by), " ", does, " element ", i, " of ", size()));
    }
    return elements_[i];
  }

  void check_write(const Element& element, int64_t i, const Access& by) {
    if (element.write.races_with(by)) fail(i, by, "writes what is written in the same phase by", &element.write);
    for (const Access* read : {&element.read, &element.read_by_other_thread, &element.read_by_other_block}) {
      if (read->races_with(by)) fail(i, by, "writes what is read in the same phase by", read);
    }
  }

  static std::string who(const Access& by) {
    return text("thread ", by.thread, " of rank ", by.rank, " of cluster ", by.cluster);
  }

  [[noreturn]] void fail(int64_t i, const Access& by, const char* does, const Access* other) const {
    throw BlockError(text(name_, "[", i, "]: ", who(by), " ", does, other ? " " : "", other ? who(*other) : ""));
  }

  std::string name_;
  std::vector<Element> elements_;
};

}  // namespace ptr_fast
