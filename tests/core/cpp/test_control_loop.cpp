#include <doctest/doctest.h>

#include <cmath>
#include <memory>

#include "control_loop.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

namespace {

std::unique_ptr<ControlLoop> started(const std::shared_ptr<TraceRing>& trace) {
    auto loop = std::make_unique<ControlLoop>(SeamLimits::fr3(), 200.0, 0.060, 0.010, 1.0, trace);
    loop->start(kHome, 1.0);
    return loop;
}

}  // namespace

TEST_CASE("chunks, stops and looks from many threads meet one control thread") {
    const auto trace = std::make_shared<TraceRing>(1 << 12);
    const auto loop = started(trace);
    std::atomic<bool> done{false};
    std::atomic<int> wrong{0};
    std::atomic<std::uint64_t> pushed{0};
    {
        Threads threads;
        for (int producer = 0; producer < 2; ++producer) {
            threads.run([&, producer] {
                while (!done) {
                    const double away = producer == 0 ? 0.05 : -0.05;
                    loop->push(line(kHome, away, 12), now_ns() + 20 * kMs, 20 * kMs, producer + 1);
                    ++pushed;
                    sleep_until(now_ns() + 3 * kMs);
                }
            });
        }
        threads.run([&] {
            std::int64_t newest = 0;
            std::uint64_t ticks = 0;
            while (!done) {
                const ControlStatus status = loop->status();
                wrong += status.t_ns < newest || status.ticks < ticks;
                for (std::size_t j = 0; j < kJoints; ++j) wrong += std::abs(status.command.q[j] - kHome[j]) > 0.1;
                newest = status.t_ns;
                ticks = status.ticks;
                loop->lateness().quantile(0.99);
                for (const double q : loop->planned(now_ns() + 50 * kMs)) wrong += !std::isfinite(q);
                sleep_until(now_ns() + kMs / 2);
            }
        });
        threads.run([&] {
            TraceEvent event;
            while (!done) {
                while (trace->drain_one(event)) wrong += event.name < 1 || event.name > 6;
                sleep_until(now_ns() + kMs);
            }
        });
        for (int turn = 0; turn < 3; ++turn) {
            CHECK(eventually([&] { return loop->status().ticks > 20 * (static_cast<std::uint64_t>(turn) + 1); }));
            CHECK(loop->stop());
            CHECK(loop->status().stopped);
            CHECK(loop->push(line(kHome, 0.05, 12), now_ns() + 20 * kMs, 20 * kMs, 9) == Refusal::kStopped);
            CHECK(eventually([&] { return loop->status().at_rest; }));
            CHECK(loop->resume());
            CHECK_FALSE(loop->status().stopped);
        }
        CHECK(eventually([&] { return loop->status().seam.accepted > 0; }));
        done = true;
    }
    CHECK(wrong == 0);
    loop->shutdown();
    const ControlStatus status = loop->status();
    CHECK(status.revision < 9);
    // One may still lie in the inbox; a stop refuses what it overtakes.
    const std::uint64_t seen = status.seam.accepted + status.seam.refused + loop->replaced() + loop->rejected();
    CHECK(seen <= pushed + 3);
    CHECK(seen + 1 >= pushed + 3);
    CHECK(loop->lateness().count() == status.ticks);
}

TEST_CASE("a loop starts again from where it is told, as often as wanted") {
    const auto loop = started(nullptr);
    CHECK_THROWS_AS(loop->start(kHome, 1.0), std::runtime_error);
    for (int turn = 0; turn < 5; ++turn) {
        loop->shutdown();
        CHECK_FALSE(loop->running());
        CHECK(loop->push(line(kHome, 0.1, 4), now_ns(), 50 * kMs, 1) == Refusal::kNotReset);
        JointArray q = kHome;
        q[0] = 0.1 * turn;
        loop->start(q, 0.5);
        CHECK(eventually([&] { return loop->status().ticks > 2; }));
        CHECK(loop->status().command.q[0] == doctest::Approx(0.1 * turn));
        CHECK(loop->status().seam.accepted == 0);
    }
}

TEST_CASE("another speed limit is taken by an arm that stands, and kept from then on") {
    const auto loop = started(nullptr);
    CHECK_THROWS_AS(loop->set_speed(0.0), std::invalid_argument);
    CHECK_THROWS_AS(loop->set_speed(1.1), std::invalid_argument);
    CHECK(loop->stop());
    CHECK(eventually([&] { return loop->status().at_rest; }));
    loop->set_speed(0.1);
    CHECK(loop->resume());
    CHECK(loop->push(line(kHome, 0.3, 4), now_ns() + 20 * kMs, 50 * kMs, 1) == Refusal::kNone);
    double fastest = 0.0;
    CHECK(eventually([&] {
        const ControlStatus status = loop->status();
        fastest = std::max(fastest, std::abs(status.command.dq[0]));
        return status.command.q[0] > kHome[0] + 0.29;
    }));
    CHECK(fastest > 0.0);
    CHECK(fastest <= 0.1 * 2.62);  // an FR3's first joint
    loop->set_speed(1.0);          // moving or not, it is not stopped: this waits
    CHECK(loop->push(line(kHome, -0.3, 4), now_ns() + 20 * kMs, 50 * kMs, 2) == Refusal::kNone);
    CHECK(eventually([&] {
        const ControlStatus status = loop->status();
        fastest = std::max(fastest, std::abs(status.command.dq[0]));
        return status.command.q[0] < kHome[0] - 0.29;
    }));
    CHECK(fastest <= 0.1 * 2.62);
}
