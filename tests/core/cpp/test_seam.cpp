#include <doctest/doctest.h>

#include "seam.hpp"
#include "seam_cases.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

TEST_CASE("every command of random cases is inside the limits, and feasible chunks are followed") {
    SeamReport report;
    for (std::uint64_t number = 0; number < 30 * std::uint64_t{kScale}; ++number) play_seam_case(number, report);
    CHECK(report.violations == 0);
    CHECK(report.plan_failures == 0);
    CHECK(report.worst_rms <= 5e-3);
    // What is measured has been reached: otherwise the figures above say little.
    for (const double used : report.used) CHECK(used > 0.99);
    CHECK(report.tracking_rms.size() > report.cases / 20);
    CHECK(report.refused > 0);
    CHECK(report.dropouts > 0);
    CHECK(report.stops > 0);
}

TEST_CASE("the report of parts is the report of the whole") {
    SeamReport whole;
    SeamReport first;
    SeamReport second;
    for (std::uint64_t number = 0; number < 6; ++number) {
        play_seam_case(number, whole);
        play_seam_case(number, number < 3 ? first : second);
    }
    first.merge(second);
    CHECK(first.commands == whole.commands);
    CHECK(first.used == whole.used);
    CHECK(first.outside == whole.outside);
    CHECK(first.tracking_rms == whole.tracking_rms);
    CHECK(first.infeasible == whole.infeasible);
}

TEST_CASE("starved of chunks the arm stops on the last action and does not go past it") {
    std::mt19937_64 random(4);
    std::uniform_real_distribution<double> share(0.0, 1.0);
    const SeamLimits limits = SeamLimits::fr3();
    for (int round = 0; round < 5 * kScale; ++round) {
        Seam seam(limits, 0.060, 0.010, 1.0);
        seam.reset(kHome, 1.0, 0);
        std::vector<Action> chunk(1 + random() % 20);
        for (Action& action : chunk) {
            for (std::size_t j = 0; j < kJoints; ++j) {
                action[j] = limits.q_min[j] + 0.01 + (limits.q_max[j] - limits.q_min[j] - 0.02) * share(random);
            }
            action[kJoints] = share(random);
        }
        const auto dt_ms = static_cast<std::int64_t>(10 + random() % 41);
        REQUIRE(seam.push(chunk, 20 * kMs, dt_ms * kMs) == Refusal::kNone);
        const std::int64_t end_ms = 20 + static_cast<std::int64_t>(chunk.size() - 1) * dt_ms;
        Command command;
        std::int64_t t_ms = 0;
        for (; t_ms < end_ms + 10'000 && (t_ms <= end_ms + 60 || !seam.at_rest()); ++t_ms) {
            command = seam.step(t_ms * kMs);
        }
        CHECK(seam.at_rest());
        CHECK(seam.remaining_s(t_ms * kMs) == 0.0);
        CHECK(command.gripper == chunk.back()[kJoints]);
        for (std::size_t j = 0; j < kJoints; ++j) CHECK(std::abs(command.q[j] - chunk.back()[j]) < 1e-6);
    }
}

TEST_CASE("a chunk that runs out while moving is not extrapolated") {
    std::mt19937_64 random(5);
    std::uniform_real_distribution<double> distance(0.02, 0.25);
    for (int round = 0; round < 5 * kScale; ++round) {
        Seam seam(SeamLimits::fr3(), 0.060, 0.010, 1.0);
        seam.reset(kHome, 1.0, 0);
        // 10 actions 50 ms apart, at full pace up to the last one: up to 0.5 rad/s.
        const double goal = distance(random);
        REQUIRE(seam.push(line(kHome, goal, 10), 50 * kMs, 50 * kMs) == Refusal::kNone);
        double furthest = 0.0;
        for (std::int64_t t_ms = 0; t_ms < 2'000; ++t_ms) {
            const Command command = seam.step(t_ms * kMs);
            for (std::size_t j = 0; j < kJoints; ++j) furthest = std::max(furthest, command.q[j] - kHome[j] - goal);
        }
        // Stopping from full pace at 10 rad/s² would take it 13 mrad past the end.
        CHECK(furthest < 5e-3);
    }
}
