#include <doctest/doctest.h>

#include "support.hpp"
#include "trace_ring.hpp"

using namespace memrt;
using namespace memrt::test;

TEST_CASE("a full ring drops what is new and counts it") {
    TraceRing ring(3);
    CHECK(ring.capacity() == 4);
    for (std::int32_t i = 0; i < 6; ++i) CHECK(ring.record({.name = i, .t_ns = 10 * i, .value = -i}) == (i < 4));
    CHECK(ring.dropped() == 2);
    TraceEvent event;
    for (std::int32_t i = 0; i < 4; ++i) {
        REQUIRE(ring.drain_one(event));
        CHECK(event.name == i);
        CHECK(event.t_ns == 10 * i);
        CHECK(event.duration_ns == TraceEvent::kInstant);
        CHECK(event.value == -i);
    }
    CHECK_FALSE(ring.drain_one(event));
    CHECK_THROWS_AS(TraceRing(1), std::invalid_argument);
    CHECK_THROWS_AS(TraceRing(TraceRing::kMaxCapacity + 1), std::invalid_argument);
}

TEST_CASE("events of several threads come out whole, each thread's in order, or are counted as dropped") {
    constexpr int kThreads = 3;
    constexpr std::int64_t kEvents = 20'000 * kScale;
    TraceRing ring(256);
    std::atomic<int> working{kThreads};
    std::atomic<std::uint64_t> attempts{0};
    Threads recorders;
    for (std::int32_t thread = 0; thread < kThreads; ++thread) {
        recorders.run([&ring, &working, &attempts, thread] {
            for (std::int64_t i = 1; i <= kEvents; ++i) {
                const TraceEvent event{
                    .name = thread, .thread = thread, .t_ns = i, .duration_ns = 2 * i, .value = 3 * i};
                bool taken = ring.record(event);
                ++attempts;
                // The first thread waits for room, so that the drainer has its turn.
                while (!taken && thread == 0) {
                    std::this_thread::yield();
                    taken = ring.record(event);
                    ++attempts;
                }
            }
            --working;
        });
    }
    std::uint64_t drained = 0;
    int wrong = 0;
    std::array<std::int64_t, kThreads> newest{};
    TraceEvent event;
    while (true) {
        const bool last_look = working == 0;
        if (!ring.drain_one(event)) {
            if (last_look) break;
            std::this_thread::yield();
            continue;
        }
        ++drained;
        wrong += event.name != event.thread || event.duration_ns != 2 * event.t_ns || event.value != 3 * event.t_ns;
        auto& before = newest[static_cast<std::size_t>(event.thread)];
        wrong += event.t_ns <= before;
        before = event.t_ns;
    }
    CHECK(wrong == 0);
    CHECK(drained >= kEvents);
    CHECK(drained + ring.dropped() == attempts);
}
