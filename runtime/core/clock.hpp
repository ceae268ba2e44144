#pragma once

#include <time.h>

#include <cstdint>

namespace memrt {

/// \brief CLOCK_MONOTONIC in nanoseconds: the one clock of this machine's side.
inline std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

/// \brief Sleeps until CLOCK_MONOTONIC reaches `deadline_ns`; signals do not cut it short.
inline void sleep_until(std::int64_t deadline_ns) {
    const timespec deadline{.tv_sec = static_cast<time_t>(deadline_ns / 1'000'000'000),
                            .tv_nsec = static_cast<long>(deadline_ns % 1'000'000'000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, nullptr) != 0) {
    }
}

}  // namespace memrt
