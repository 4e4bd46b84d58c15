// What the parts of the bindings share.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <memory>
#include <vector>

#include "program/program.h"
#include "sample/draw.h"

namespace vivace {

struct NextStep;

// A program under construction, the ropes its head ops refer to, what draws from its rows, and the step that may follow
// the one under way without Python.
struct Builder {
  std::shared_ptr<NextStep> current, next;  // outlive the program, which may still be at work on one
  Program program;
  std::vector<const RopeTable*> ropes;
  std::vector<RowDrawer> drawers;
  std::atomic<bool> is_held{false};  // the next step is not to follow by itself
};

// Draws tokens[i] from rows[i] with the threads of the program.
void draw_all(Builder& self, const std::vector<DrawRow>& rows, std::vector<int>& tokens);

void bind_sampling(nanobind::class_<Builder>& program);
void bind_steps(nanobind::class_<Builder>& program);
void bind_relay(nanobind::class_<Builder>& program);

}  // namespace vivace
