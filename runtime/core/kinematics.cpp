#include "kinematics.hpp"

#include <algorithm>
#include <cmath>

namespace memrt {

namespace {

using Vector3 = std::array<double, 3>;
using Vector6 = std::array<double, 6>;
using Rotation = std::array<double, 9>;                       // row by row
using Jacobian = std::array<std::array<double, kJoints>, 6>;  // [m/rad] above, [rad/rad] below

constexpr int kMaxIterations = 60;
// Good enough to go on to the next pose: a thousandth of what a caller may ask for.
constexpr double kDonePosition = 1e-6;
constexpr double kDoneRotation = 1e-6;
constexpr double kMaxStep = 0.2;  // [rad] per iteration: further away the Jacobian says nothing
// Damping is the squared error, which falls away near the solution, and a floor that keeps a singular arm from leaping.
constexpr double kDampingFloor = 1e-6;

Vector3 cross(const Vector3& a, const Vector3& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

double norm(double x, double y, double z) {
    return std::sqrt(x * x + y * y + z * z);
}

Rotation times(const Rotation& a, const Rotation& b) {
    Rotation out{};
    for (std::size_t r = 0; r < 3; ++r) {
        for (std::size_t c = 0; c < 3; ++c) {
            out[3 * r + c] = a[3 * r] * b[c] + a[3 * r + 1] * b[3 + c] + a[3 * r + 2] * b[6 + c];
        }
    }
    return out;
}

Vector3 times(const Rotation& a, const Vector3& v) {
    return {a[0] * v[0] + a[1] * v[1] + a[2] * v[2], a[3] * v[0] + a[4] * v[1] + a[5] * v[2],
            a[6] * v[0] + a[7] * v[1] + a[8] * v[2]};
}

// Shepperd's method: divides by the largest of the four.
std::array<double, 4> to_quaternion(const Rotation& m) {
    const double trace = m[0] + m[4] + m[8];
    std::array<double, 4> q{};
    if (trace >= std::max({m[0], m[4], m[8]})) {
        const double s = 2.0 * std::sqrt(1.0 + trace);
        q = {s / 4.0, (m[7] - m[5]) / s, (m[2] - m[6]) / s, (m[3] - m[1]) / s};
    } else {
        const std::size_t i = m[0] >= std::max(m[4], m[8]) ? 0 : (m[4] >= m[8] ? 1 : 2);
        const std::size_t j = (i + 1) % 3;
        const std::size_t k = (i + 2) % 3;
        const double s = 2.0 * std::sqrt(1.0 + m[4 * i] - m[4 * j] - m[4 * k]);
        q[0] = (m[3 * k + j] - m[3 * j + k]) / s;
        q[1 + i] = s / 4.0;
        q[1 + j] = (m[3 * j + i] + m[3 * i + j]) / s;
        q[1 + k] = (m[3 * k + i] + m[3 * i + k]) / s;
    }
    return q;
}

// The rotation vector that turns `from` into `to`, at most pi long [rad].
Vector3 rotation_between(const std::array<double, 4>& from, const std::array<double, 4>& to) {
    // to * conjugate(from)
    double w = to[0] * from[0] + to[1] * from[1] + to[2] * from[2] + to[3] * from[3];
    double x = -to[0] * from[1] + to[1] * from[0] - to[2] * from[3] + to[3] * from[2];
    double y = -to[0] * from[2] + to[2] * from[0] - to[3] * from[1] + to[1] * from[3];
    double z = -to[0] * from[3] + to[3] * from[0] - to[1] * from[2] + to[2] * from[1];
    if (w < 0.0) {
        w = -w;
        x = -x;
        y = -y;
        z = -z;
    }
    const double sine = norm(x, y, z);
    const double scale = sine > 1e-12 ? 2.0 * std::atan2(sine, w) / sine : 2.0;
    return {scale * x, scale * y, scale * z};
}

// Solves a symmetric positive definite system in place (Cholesky); the damping keeps the pivots above zero.
Vector6 solve_spd(std::array<Vector6, 6>& m, Vector6 b) {
    for (std::size_t i = 0; i < 6; ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            double sum = m[i][j];
            for (std::size_t k = 0; k < j; ++k) sum -= m[i][k] * m[j][k];
            m[i][j] = i == j ? std::sqrt(sum) : sum / m[j][j];
        }
    }
    for (std::size_t i = 0; i < 6; ++i) {
        for (std::size_t k = 0; k < i; ++k) b[i] -= m[i][k] * b[k];
        b[i] /= m[i][i];
    }
    for (std::size_t i = 6; i-- > 0;) {
        for (std::size_t k = i + 1; k < 6; ++k) b[i] -= m[k][i] * b[k];
        b[i] /= m[i][i];
    }
    return b;
}

}  // namespace

struct Kinematics::Frames {
    Pose tool;
    Jacobian jacobian;  // of the tool centre point, in the base's frame
};

Kinematics::Kinematics(const std::array<DhRow, kJoints>& dh, const std::array<double, 12>& tool)
    : dh_(dh), tool_(tool) {
    for (std::size_t j = 0; j < kJoints; ++j) {
        cos_alpha_[j] = std::cos(dh[j].alpha);
        sin_alpha_[j] = std::sin(dh[j].alpha);
    }
}

Kinematics::Frames Kinematics::frames(const JointArray& q) const {
    std::array<Vector3, kJoints> axes;
    std::array<Vector3, kJoints> origins;
    Rotation rotation{1, 0, 0, 0, 1, 0, 0, 0, 1};
    Vector3 position{};
    for (std::size_t j = 0; j < kJoints; ++j) {
        const double c = std::cos(q[j]);
        const double s = std::sin(q[j]);
        const double ca = cos_alpha_[j];
        const double sa = sin_alpha_[j];
        const Vector3 offset = times(rotation, Vector3{dh_[j].a, -sa * dh_[j].d, ca * dh_[j].d});
        for (std::size_t i = 0; i < 3; ++i) position[i] += offset[i];
        rotation = times(rotation, Rotation{c, -s, 0.0, s * ca, c * ca, -sa, s * sa, c * sa, ca});
        axes[j] = {rotation[2], rotation[5], rotation[8]};
        origins[j] = position;
    }
    const Vector3 offset = times(rotation, Vector3{tool_[3], tool_[7], tool_[11]});
    for (std::size_t i = 0; i < 3; ++i) position[i] += offset[i];
    rotation = times(
        rotation, Rotation{tool_[0], tool_[1], tool_[2], tool_[4], tool_[5], tool_[6], tool_[8], tool_[9], tool_[10]});
    Frames found;
    found.tool = {position, to_quaternion(rotation)};
    for (std::size_t j = 0; j < kJoints; ++j) {
        const Vector3 arm{position[0] - origins[j][0], position[1] - origins[j][1], position[2] - origins[j][2]};
        const Vector3 linear = cross(axes[j], arm);
        for (std::size_t i = 0; i < 3; ++i) {
            found.jacobian[i][j] = linear[i];
            found.jacobian[3 + i][j] = axes[j][i];
        }
    }
    return found;
}

Pose Kinematics::forward(const JointArray& q) const {
    return frames(q).tool;
}

Reached Kinematics::solve(const Pose& target, const JointArray& from, const Posture& posture) const {
    Reached reached{.q = from};
    JointArray& q = reached.q;
    // A joint that begins outside its range may stay where it is, or come back: as in the seam.
    JointArray low;
    JointArray high;
    for (std::size_t j = 0; j < kJoints; ++j) {
        low[j] = std::min(posture.q_min[j], from[j]);
        high[j] = std::max(posture.q_max[j], from[j]);
    }
    for (int iteration = 0;; ++iteration) {
        const Frames at = frames(q);
        Vector6 error;
        for (std::size_t i = 0; i < 3; ++i) error[i] = target.position[i] - at.tool.position[i];
        const Vector3 turn = rotation_between(at.tool.rotation, target.rotation);
        std::copy(turn.begin(), turn.end(), error.begin() + 3);
        reached.position_error = norm(error[0], error[1], error[2]);
        reached.rotation_error = norm(error[3], error[4], error[5]);
        const bool done = reached.position_error < kDonePosition && reached.rotation_error < kDoneRotation;
        if ((done && iteration > 0) || iteration == kMaxIterations) return reached;

        double damping = kDampingFloor;
        for (const double e : error) damping += 0.5 * e * e;
        JointArray wish{};  // the first step also moves towards home, as far as the pose allows
        if (iteration == 0) {
            for (std::size_t j = 0; j < kJoints; ++j) wish[j] = posture.pull * (posture.home[j] - q[j]);
        }
        // Joints that the step would take beyond their end go to it and are locked; the others take over.
        std::array<bool, kJoints> locked{};
        JointArray step = wish;
        for (bool again = true; again;) {
            again = false;
            std::array<Vector6, 6> gram{};
            Vector6 left = error;
            for (std::size_t r = 0; r < 6; ++r) {
                for (std::size_t j = 0; j < kJoints; ++j)
                    left[r] -= at.jacobian[r][j] * (locked[j] ? step[j] : wish[j]);
                for (std::size_t c = 0; c <= r; ++c) {
                    for (std::size_t j = 0; j < kJoints; ++j) {
                        if (!locked[j]) gram[r][c] += at.jacobian[r][j] * at.jacobian[c][j];
                    }
                }
                gram[r][r] += damping;
            }
            const Vector6 force = solve_spd(gram, left);
            double largest = 0.0;
            for (std::size_t j = 0; j < kJoints; ++j) {
                if (locked[j]) continue;
                step[j] = wish[j];
                for (std::size_t r = 0; r < 6; ++r) step[j] += at.jacobian[r][j] * force[r];
                largest = std::max(largest, std::abs(step[j]));
            }
            const double shorter = largest > kMaxStep ? kMaxStep / largest : 1.0;
            for (std::size_t j = 0; j < kJoints; ++j) {
                if (locked[j]) continue;
                step[j] *= shorter;
                const double inside = std::clamp(q[j] + step[j], low[j], high[j]) - q[j];
                if (inside != step[j]) {
                    step[j] = inside;
                    locked[j] = true;
                    again = true;
                }
            }
        }
        for (std::size_t j = 0; j < kJoints; ++j) q[j] = std::clamp(q[j] + step[j], low[j], high[j]);
    }
}

}  // namespace memrt
