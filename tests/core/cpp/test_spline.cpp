#include <doctest/doctest.h>

#include "spline.hpp"
#include "support.hpp"

using namespace memrt;
using namespace memrt::test;

TEST_CASE("the curve passes every point, is continuous to its second derivative and ends at rest") {
    std::mt19937_64 random(2);
    std::uniform_real_distribution<double> angle(-2.0, 2.0);
    for (int round = 0; round < 50; ++round) {
        Spline spline;
        std::int64_t t = 0;
        const std::size_t points = 2 + random() % 60;
        for (std::size_t i = 0; i < points; ++i) {
            Waypoint point{.t_ns = t};
            for (double& q : point.q) q = angle(random);
            spline.append(point);
            t += static_cast<std::int64_t>(10 + random() % 60) * kMs;
        }
        JointArray rate;
        rate.fill(angle(random));
        spline.solve(rate);
        CHECK(spline.at(spline[0].t_ns).dq[3] == doctest::Approx(rate[3]));
        for (std::size_t i = 0; i < points; ++i) {
            const JointState here = spline.at(spline[i].t_ns);
            for (std::size_t j = 0; j < kJoints; ++j) CHECK(here.q[j] == doctest::Approx(spline[i].q[j]));
            if (i == 0 || i + 1 == points) continue;
            const JointState before = spline.at(spline[i].t_ns - 1);
            const JointState after = spline.at(spline[i].t_ns + 1);
            for (std::size_t j = 0; j < kJoints; ++j) {
                CHECK(before.dq[j] == doctest::Approx(after.dq[j]).epsilon(1e-3));
                CHECK(std::abs(before.ddq[j] - after.ddq[j]) < 1.0);  // of thousands: jerk times 2 ns
            }
        }
        const JointState end = spline.at(spline.back().t_ns + kMs);
        for (std::size_t j = 0; j < kJoints; ++j) {
            CHECK(end.q[j] == spline.back().q[j]);
            CHECK(end.dq[j] == 0.0);
        }
    }
}
