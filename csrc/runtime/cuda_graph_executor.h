// A policy as a captured CUDA graph behind the control loop's Executor: copies into pinned memory, one launch of the
// graph, one wait. No Python, no GIL, no allocation of ours per call.
//
// The graph was captured by PyTorch, which gives out the handle of its executable form; it reads and writes the pinned
// buffers itself. CUDA's driver is not linked but opened by name, as it is part of the machine and not of this build:
// the executor needs no nvcc, and a module that has it imports where there is no driver. Interface: cuda.h, CUDA 12
// and later; the handles of the runtime's and the driver's interfaces are the same.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/executor.h"

namespace ptr_fast {

class CudaGraphExecutor final : public Executor {
 public:
  // Addresses of pinned host memory that the graph reads and writes; its owner keeps it.
  struct Buffers {
    std::vector<uint8_t*> frames;  // of each camera [T, H, W, 3]
    float* state;                  // [T, S]
    const float* action;           // [H, A]
  };
  // What the driver calls CUgraphExec and CUstream; ``device`` counts as the driver counts.
  struct Graph {
    int device;
    uintptr_t executable;
    uintptr_t stream;
  };

  // owner: what keeps graph and buffers alive; let go of with the executor. driver: name or path of the driver's
  // library. std::runtime_error where it cannot be opened, lacks a function or refuses the device.
  CudaGraphExecutor(std::shared_ptr<void> owner, const std::string& driver, const Graph& graph, const Buffers& buffers,
                    PolicySizes sizes);
  ~CudaGraphExecutor() override;
  CudaGraphExecutor(const CudaGraphExecutor&) = delete;

  int run(const ObservationView& observations, float* chunk) override;

 private:
  struct Driver;
  const std::shared_ptr<void> owner_;
  const Graph graph_;
  const Buffers buffers_;
  std::unique_ptr<Driver> driver_;
};

}  // namespace ptr_fast
