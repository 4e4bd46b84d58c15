// What the parts of the bindings share.
#pragma once

#include <nanobind/nanobind.h>

#include <vector>

#include "program/program.h"
#include "sample/draw.h"

namespace vivace {

// A program under construction, the ropes its head ops refer to, and what draws from its rows.
struct Builder {
  Program program;
  std::vector<const RopeTable*> ropes;
  std::vector<RowDrawer> drawers;
};

void bind_sampling(nanobind::class_<Builder>& program);
void bind_steps(nanobind::class_<Builder>& program);

}  // namespace vivace
