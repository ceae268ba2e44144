#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#include "control_loop.hpp"
#include "count_allocations.hpp"
#include "frame_ring.hpp"
#include "kinematics.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

namespace {

std::vector<std::vector<Action>> random_chunks(std::size_t count) {
    std::mt19937_64 random(6);
    std::uniform_real_distribution<double> share(-0.01, 1.01);
    const SeamLimits limits = SeamLimits::fr3();
    std::vector<std::vector<Action>> chunks(count);
    for (auto& chunk : chunks) {
        chunk.resize(1 + random() % 50);
        for (Action& action : chunk) {
            for (std::size_t j = 0; j < kJoints; ++j) {
                action[j] = limits.q_min[j] + (limits.q_max[j] - limits.q_min[j]) * share(random);
            }
            action[kJoints] = share(random);
        }
    }
    return chunks;
}

}  // namespace

TEST_CASE("the counter counts") {
    const CountAllocations allocations;
    void* volatile one = ::operator new(1);  // volatile: or the compiler would spare them
    void* volatile two = std::malloc(10);
    void* volatile three = std::calloc(10, 10);
    const std::uint64_t counted = allocations.count();
    ::operator delete(one);
    std::free(two);
    std::free(three);
    CHECK(counted == 3);
}

TEST_CASE("a seam plans without allocating, whatever is pushed") {
    const auto chunks = random_chunks(300);
    Seam seam(SeamLimits::fr3(), 0.060, 0.010, 1.0);
    std::uint64_t counted = 0;
    {
        const CountAllocations allocations;
        seam.reset(kHome, 1.0, 0);
        std::int64_t t = 0;
        for (const auto& chunk : chunks) {
            seam.push(chunk, t + 20 * kMs, 20 * kMs);
            for (int i = 0; i < 100; ++i, t += kMs) seam.step(t);
            if (chunk.size() % 10 == 0) {
                seam.stop(t);
                seam.resume();
            }
        }
        counted = allocations.count();
    }
    CHECK(counted == 0);
    CHECK(seam.counters().accepted > 200);
}

TEST_CASE("inverse kinematics finds and misses poses without allocating") {
    constexpr DhRow link{.a = 0.1, .d = 0.2, .alpha = 1.5};
    std::array<DhRow, kJoints> dh;
    dh.fill(link);
    const Kinematics arm(dh, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.1});
    Posture posture{.q_min = {}, .q_max = {}, .home = kHome, .pull = 0.1};
    posture.q_min.fill(-3.0);
    posture.q_max.fill(3.0);
    const Pose near = arm.forward(kHome);
    Pose far = near;
    far.position[0] += 10.0;
    std::uint64_t counted = 0;
    Reached found;
    Reached missed;
    {
        const CountAllocations allocations;
        found = arm.solve(near, kHome, posture);
        missed = arm.solve(far, kHome, posture);
        counted = allocations.count();
    }
    CHECK(counted == 0);
    CHECK(found.position_error < 1e-6);
    CHECK(missed.position_error > 1.0);
}

TEST_CASE("the control thread ticks, takes chunks, stops and records without allocating") {
    const auto chunks = random_chunks(60);
    const auto trace = std::make_shared<TraceRing>(1 << 10);
    ControlLoop loop(SeamLimits::fr3(), 1000.0, 0.060, 0.010, 1.0, trace);
    loop.start(kHome, 1.0);
    CHECK(eventually([&] { return loop.status().ticks > 10; }));
    std::uint64_t counted = 0;
    std::uint64_t ticks = 0;
    {
        const CountAllocations allocations;
        ticks = loop.status().ticks;
        std::int64_t revision = 0;
        for (const auto& chunk : chunks) {
            loop.push(chunk, now_ns() + 5 * kMs, 20 * kMs, ++revision);
            sleep_until(now_ns() + 8 * kMs);
            loop.status();
            loop.planned(now_ns());
        }
        loop.stop();
        loop.resume();
        ticks = loop.status().ticks - ticks;
        counted = allocations.count();
    }
    CHECK(counted == 0);
    CHECK(ticks > 50);
    CHECK(loop.status().seam.accepted > 10);
    TraceEvent event;
    CHECK(trace->drain_one(event));
}

TEST_CASE("events, chunks and frames change hands without allocating") {
    TraceRing trace(64);
    ChunkBuffer buffer;
    const auto chunk = line(kHome, 0.1, 50);
    constexpr FrameShape kShape{32, 32, 3};
    const std::string name = "memrt-cpp-allocations-" + std::to_string(getpid());
    const auto writer = FrameRing::create(name, 16, kShape);
    const auto reader = FrameRing::open(name);
    const std::vector<std::uint8_t> pixels(kShape.bytes(), 1);
    std::uint64_t counted = 0;
    bool good = true;
    {
        const CountAllocations allocations;
        for (std::int64_t i = 0; i < 200; ++i) {
            trace.record(
                {.name = 1, .thread = this_thread(), .t_ns = i});  // full after 64: dropping is counted as well
            buffer.put(chunk, i, kMs, i);
            good &= i % 2 == 0 || buffer.take() != nullptr;
            good &= writer->write(pixels.data(), static_cast<std::uint64_t>(i), i);
            const auto newest = FrameRing::borrow(reader);
            const auto older = FrameRing::borrow(reader, i - 5);
            good &= newest && newest->t_ns() == i && older.has_value() == (i >= 5);
        }
        counted = allocations.count();
    }
    CHECK(counted == 0);
    CHECK(good);
}
