#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace memrt {

/// \brief Durations counted in buckets that grow with the duration: within 1/8 of the value, from 1 ns to centuries.
///
/// One writer, any readers; a reader may see a count that is one sample behind. Fixed memory (4 KiB).
class Histogram {
  public:
    void add(std::int64_t duration_ns) {
        const auto value = static_cast<std::uint64_t>(std::max<std::int64_t>(duration_ns, 0));
        auto& bucket = counts_[index(value)];
        // A single writer: load and store instead of a locked increment. Relaxed: counts order nothing else.
        bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        if (value > max_.load(std::memory_order_relaxed)) max_.store(value, std::memory_order_relaxed);
    }

    void clear() {
        for (auto& count : counts_) count.store(0, std::memory_order_relaxed);
        max_.store(0, std::memory_order_relaxed);
    }

    std::uint64_t count() const {
        std::uint64_t total = 0;
        for (const auto& count : counts_) total += count.load(std::memory_order_relaxed);
        return total;
    }

    std::uint64_t max() const { return max_.load(std::memory_order_relaxed); }

    /// \brief Upper edge of the bucket in which the given fraction of all samples is reached; 0 without samples.
    std::uint64_t quantile(double fraction) const {
        const double wanted = fraction * static_cast<double>(count());
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < kBuckets; ++i) {
            seen += counts_[i].load(std::memory_order_relaxed);
            if (seen > 0 && static_cast<double>(seen) >= wanted) return std::min(edge(i), max());
        }
        return max();
    }

  private:
    static constexpr std::size_t kSub = 8;  // buckets per doubling
    static constexpr std::size_t kBuckets = 64 * kSub;

    static std::size_t index(std::uint64_t value) {
        if (value < kSub) return value;
        const auto octave = static_cast<std::size_t>(std::bit_width(value)) - 4;  // value >> octave lies in 8..15
        return std::min((octave + 1) * kSub + (value >> octave) - kSub, kBuckets - 1);
    }

    static std::uint64_t edge(std::size_t bucket) {
        if (bucket < kSub) return bucket;
        const std::size_t octave = bucket / kSub - 1;
        return ((bucket % kSub + kSub + 1) << octave) - 1;
    }

    std::array<std::atomic<std::uint64_t>, kBuckets> counts_{};
    std::atomic<std::uint64_t> max_{0};
};

}  // namespace memrt
