// A small pool of persistent threads. Several callers may use it at once; each caller works on its own job too.
#pragma once
#include <cstdint>
#include <functional>

namespace ptr_fast {

// Runs body(0) .. body(num_items - 1), each exactly once, on at most num_threads threads (the caller is one of them),
// and returns when all are done. Which thread runs an item is open, so an item must depend on nothing but its index
// and must write nothing that another item touches: then the result has the same bits for any num_threads.
// The first exception of a body is thrown in the caller once every started item has ended.
void parallel_for(int64_t num_items, int num_threads, const std::function<void(int64_t)>& body);

// Threads that the pool holds now, without the callers.
int pool_size();

}  // namespace ptr_fast
