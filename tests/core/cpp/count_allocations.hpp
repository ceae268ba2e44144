#pragma once

#include <cstdint>

namespace memrt::test {

/// Counts what any thread of the process allocates (malloc and its kin, hence operator new too) while it lives.
class CountAllocations {
  public:
    CountAllocations();
    ~CountAllocations();
    CountAllocations(const CountAllocations&) = delete;
    CountAllocations& operator=(const CountAllocations&) = delete;

    std::uint64_t count() const;
};

}  // namespace memrt::test
