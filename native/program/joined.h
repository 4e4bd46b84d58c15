// Ops that follow each other done in the same tasks, where a step has few rows: what a task has made is still in its
// core's cache, and threads need not wait for one another in between. Each row gets the same bits either way. Tasks are
// at different ops at the same time, so no buffer of the joined ops may lie on another (CoreGraph.lifetimes).
#pragma once

#include <memory>
#include <vector>

#include "program/ops.h"

namespace vivace {

// Stands for `count` ops of a program from `first` on, in steps that it fits.
struct JoinedOps {
  virtual ~JoinedOps() = default;
  virtual bool fits(const Step& step) const = 0;
  virtual int num_tasks(const Step& step) const = 0;
  virtual void run(const Step& step, int task, float* scratch) const = 0;

  size_t first = 0, count = 0;
  size_t told_under = 0;  // which of them the time of all is told under, counted from `first`
};

// What the last op of a program can be joined into with ops before it; null: nothing.
std::unique_ptr<JoinedOps> join_last(const std::vector<std::unique_ptr<Op>>& ops);

}  // namespace vivace
