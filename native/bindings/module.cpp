// vivace._native: packed matrices, the KV pool and programs, for `execute/native.py` alone. Checks dtype, shape and
// contiguity here, then drops the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <numeric>

#include "bench/roofline.h"
#include "bindings/builder.h"
#include "kernels/table.h"
#include "program/program.h"
#include "weights/packed.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace vivace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using MutableBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatVector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using DoubleVector = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Segments = std::vector<std::tuple<std::shared_ptr<PackedMatrix>, int, int, int>>;  // bias, buffer, its column

namespace {

RowKind row_kind(int bits) {
  switch (bits) {
    case 32:
      return RowKind::kFloat;
    case 16:
      return RowKind::kBfloat;
    case 12:
      return RowKind::kFine;
    case 8:
      return RowKind::kCoarse;
  }
  throw std::invalid_argument("rows have 32, 16, 12 or 8 bits");
}

// The order of `InputGrid.numbers` in numerics/input_grids.py.
InputGrid input_grid(const std::vector<float>& numbers, RowKind kind) {
  if (numbers.size() != 7) throw std::invalid_argument("a grid is seven numbers");
  const InputGrid grid{numbers[0],         numbers[1], numbers[2] != 0.0f, numbers[3] != 0.0f,
                       numbers[4] != 0.0f, numbers[5], numbers[6]};
  const bool coarse = kind == RowKind::kCoarse;
  if (!coarse && kind != RowKind::kFine) throw std::invalid_argument("rows of 8 or 12 bits alone have a grid");
  if (!(grid.top >= 1.0f && grid.top <= 127.0f && grid.clip > 0.0f && grid.clip <= 1.0f && grid.low <= 0.0f &&
        grid.high >= 0.0f))
    throw std::invalid_argument("a grid spans nothing that codes can hold");
  if (grid.shifted && !(coarse && grid.by_row)) throw std::invalid_argument("shifted rows have 8 bits and one scale");
  return grid;
}

// Sums of a matrix's rows, padded to whole panels.
std::vector<float> row_sums(const PackedMatrix& weight) {
  const PackedView view = weight.view();
  if (view.format == PanelFormat::kNested)
    throw std::invalid_argument("nested weights take no inputs with a zero point");
  std::vector<float> row(view.num_inputs);
  std::vector<float> sums((view.num_outputs + kLanes - 1) / kLanes * kLanes, 0.0f);
  for (int i = 0; i < view.num_outputs; ++i) {
    weight.unpack_row(i, row.data());
    sums[i] = static_cast<float>(std::accumulate(row.begin(), row.end(), 0.0));
  }
  return sums;
}

void add_rope(Program& program, int out, DoubleVector frequencies, double factor, bool interleaved,
              std::vector<const RopeTable*>& ropes) {
  auto op = std::make_unique<RopeTable>();
  op->frequencies.assign(frequencies.data(), frequencies.data() + frequencies.shape(0));
  op->factor = factor;
  op->interleaved = interleaved;
  op->out = program.buffer(out);
  ropes.push_back(op.get());
  program.add_op(std::move(op));
}

void add_norm(Builder& self, int a, int b, int total, int out, int quantized, int weight, float eps) {
  auto op = std::make_unique<NormRows>();
  op->a = self.program.buffer(a);
  op->b = self.program.buffer(b);
  op->total = self.program.buffer(total);
  op->out = self.program.buffer(out);
  op->quantized = self.program.buffer(quantized);
  op->weight = self.program.vector(weight);
  op->eps = eps;
  self.program.add_op(std::move(op));
}

void add_linear(Builder& self, int x, int quantized, const Segments& segments) {
  auto op = std::make_unique<LinearRows>();
  op->x = self.program.buffer(x);
  op->quantized = self.program.buffer(quantized);
  for (const auto& [weight, bias, out, column] : segments) {
    const Buffer& target = self.program.buffer(out);
    const PanelFormat format = weight->view().format;
    const bool reads_bfloats = format == PanelFormat::kBF16 && op->quantized.kind == RowKind::kBfloat;
    const int width = is_quantized(format) || reads_bfloats ? op->quantized.width : op->x.width;
    const bool inside = column >= 0 && column % kLanes == 0 && column + weight->view().num_outputs <= target.width;
    const bool ends = column + weight->view().num_outputs == target.width || weight->view().num_outputs % kLanes == 0;
    if (weight->view().num_inputs != width || !inside || !ends)
      throw std::invalid_argument("a linear's weight does not fit its buffers");
    if (is_quantized(weight->view().format) &&
        (weight->view().format == PanelFormat::kTurned) != (op->quantized.kind == RowKind::kTurned))
      throw std::invalid_argument("turned weights and turned rows go together");
    const float* biases = self.program.vector(bias);
    op->segments.push_back({weight, biases ? biases + column : nullptr, target, column});
    if (is_quantized(format) && op->quantized.grid && op->quantized.grid->shifted)
      op->segments.back().row_sums = row_sums(*weight);
  }
  self.program.add_op(std::move(op));
}

void add_heads(Builder& self, int q, int k, int v, int rope, int q_norm, int k_norm, float eps, float scale,
               int num_heads, int num_kv_heads, int head_dim, int layer) {
  auto op = std::make_unique<HeadRows>();
  op->q = self.program.buffer(q);
  op->k = self.program.buffer(k);
  op->v = self.program.buffer(v);
  op->rope = self.ropes.at(rope);
  op->q_norm = self.program.vector(q_norm);
  op->k_norm = self.program.vector(k_norm);
  op->norm_eps = eps;
  op->scale = scale;
  op->num_heads = num_heads;
  op->num_kv_heads = num_kv_heads;
  op->head_dim = head_dim;
  op->kv = self.program.kv().layer(layer);
  op->is_local = self.program.kv().is_local(layer);
  op->exact = self.program.kv().exact(layer);
  op->exact_is_local = self.program.kv().exact_is_local();
  self.program.add_op(std::move(op));
}

void add_attention(Builder& self, int q, int out, int layer, int num_heads, int window) {
  auto op = std::make_unique<AttendRows>();
  op->q = self.program.buffer(q);
  op->out = self.program.buffer(out);
  op->kv = self.program.kv().layer(layer);
  op->num_heads = num_heads;
  op->window = window;
  op->tiles = self.program.tiles();
  op->is_local = self.program.kv().is_local(layer);
  op->exact = self.program.kv().exact(layer);
  op->exact_is_local = self.program.kv().exact_is_local();
  self.program.add_op(std::move(op));
  if (window > 0) return;
  auto observer = std::make_unique<ObserveRows>();
  observer->q = self.program.buffer(q);
  observer->kv = self.program.kv().layer(layer);
  observer->num_heads = num_heads;
  self.program.add_op(std::move(observer));
}

void add_gated(Builder& self, int gate, int up, int out, int quantized, const std::string& activation,
               bool is_only_reader) {
  auto op = std::make_unique<GateRows>();
  op->gate = self.program.buffer(gate);
  op->up = self.program.buffer(up);
  op->out = self.program.buffer(out);
  op->quantized = self.program.buffer(quantized);
  if (activation != "silu" && activation != "gelu_tanh")
    throw std::invalid_argument("unknown activation '" + activation + "'");
  op->activation = activation == "silu" ? Activation::kSilu : Activation::kGeluTanh;
  op->is_only_reader = is_only_reader;
  self.program.add_op(std::move(op));
}

void add_embed(Builder& self, int out, const std::vector<std::shared_ptr<PackedMatrix>>& bands, float scale) {
  auto op = std::make_unique<EmbedRows>();
  op->bands.assign(bands.begin(), bands.end());
  op->scale = scale;
  op->out = self.program.buffer(out);
  int num_rows = 0;
  for (const auto& band : bands) {
    num_rows += band->view().num_outputs;
    if (band->view().num_inputs != op->out.width) throw std::invalid_argument("an embedding does not fit its buffer");
  }
  if (num_rows < self.program.vocab_size()) throw std::invalid_argument("an embedding has too few rows");
  self.program.add_op(std::move(op));
}

// Ops that read one buffer and write another.
template <class OpType>
void add_unary(Builder& self, int x, int out) {
  auto op = std::make_unique<OpType>();
  op->x = self.program.buffer(x);
  op->out = self.program.buffer(out);
  self.program.add_op(std::move(op));
}

void add_sum(Builder& self, int a, int b, int out) {
  auto op = std::make_unique<AddRows>();
  op->a = self.program.buffer(a);
  op->b = self.program.buffer(b);
  op->out = self.program.buffer(out);
  self.program.add_op(std::move(op));
}

void bind_program(nb::module_& module) {
  nb::class_<ThreadPool>(module, "ThreadPool")
      .def(
          "__init__",
          [](ThreadPool* self, int num_threads) {
            if (num_threads < 1) throw std::invalid_argument("threads must be at least 1");
            new (self) ThreadPool(num_threads);
          },
          "num_threads"_a)
      .def_prop_ro("num_threads", &ThreadPool::num_threads);
  auto program = nb::class_<Builder>(module, "Program");
  bind_sampling(program);
  bind_steps(program);
  bind_relay(program);
  program
      .def(
          "__init__",
          [](Builder* self, const std::string& isa, std::shared_ptr<ThreadPool> threads, int max_rows, int max_selected,
             size_t arena_bytes, std::shared_ptr<KvPool> kv) {
            if (max_rows < 1 || max_selected < 1) throw std::invalid_argument("rows and logit rows must be at least 1");
            new (self) Builder{
                {}, {}, Program(isa, std::move(threads), max_rows, max_selected, arena_bytes, std::move(kv)), {}, {}};
          },
          "isa"_a, "threads"_a, "max_rows"_a, "max_selected"_a, "arena_bytes"_a, "kv"_a)
      .def("add_buffer",
           [](Builder& self, size_t offset, int width, int bits, bool selected, bool turned,
              const std::vector<float>& grid) {
             if (turned && (bits != 8 || width % kTurn != 0))
               throw std::invalid_argument("turned rows have 8 bits and a multiple of 64 columns");
             const RowKind kind = turned ? RowKind::kTurned : row_kind(bits);
             if (grid.empty()) return self.program.add_buffer(offset, width, kind, selected);
             const InputGrid checked = input_grid(grid, kind);
             return self.program.add_buffer(offset, width, kind, selected, &checked);
           })
      .def("add_vector",
           [](Builder& self, FloatVector values) { return self.program.add_vector(values.data(), values.shape(0)); })
      .def("set_output", [](Builder& self, int buffer) { self.program.set_output(buffer); })
      .def("set_attention_shape", [](Builder& self, int heads, int kv_heads, int head_dim,
                                     int vocab) { self.program.set_attention_shape(heads, kv_heads, head_dim, vocab); })
      .def("rope",
           [](Builder& self, int out, DoubleVector frequencies, double factor, bool interleaved) {
             add_rope(self.program, out, frequencies, factor, interleaved, self.ropes);
             return static_cast<int>(self.ropes.size()) - 1;
           })
      .def("embed", &add_embed)
      .def("quantize", &add_unary<QuantizeRows>)
      .def("pick", &add_unary<PickRows>)
      .def("add", &add_sum)
      .def("norm", &add_norm)
      .def("linear", &add_linear)
      .def("heads", &add_heads)
      .def("attention", &add_attention)
      .def("gated", &add_gated)
      .def_prop_ro("isa", [](const Builder& self) { return self.program.isa(); })
      .def_prop_ro("num_threads", [](const Builder& self) { return self.program.num_threads(); })
      .def_prop_ro("arena_bytes", [](const Builder& self) { return self.program.arena_bytes(); });
}

void check_block(const KvPool& pool, int block, size_t num_bytes, bool local) {
  if (block < 0 || block >= (local ? pool.num_local_blocks() : pool.num_blocks()))
    throw std::invalid_argument("a block number lies outside the pool");
  if (num_bytes != (local ? pool.bytes_per_local_block() : pool.bytes_per_block()))
    throw std::invalid_argument("a block has another number of bytes");
}

void bind_memory(nb::module_& module) {
  nb::class_<ChunkedMemory>(module, "ChunkedMemory").def(nb::init<>());
  nb::class_<PackedMatrix>(module, "PackedMatrix")
      .def(
          "__init__",
          [](PackedMatrix* self, const std::string& format, Bytes raw, int num_outputs, int num_inputs, int num_threads,
             std::shared_ptr<ChunkedMemory> memory, bool turned) {
            nb::gil_scoped_release release;
            new (self) PackedMatrix(format, raw.data(), raw.shape(0), num_outputs, num_inputs, num_threads,
                                    std::move(memory), turned);
          },
          "format"_a, "raw"_a, "num_outputs"_a, "num_inputs"_a, "num_threads"_a, "memory"_a, "turned"_a = false)
      .def_prop_ro("num_bytes", &PackedMatrix::bytes)
      .def_rw("full_level", &PackedMatrix::full_level)
      .def_prop_ro("is_quantized", [](const PackedMatrix& self) { return is_quantized(self.view().format); })
      .def("unpack_row", [](const PackedMatrix& self, int index) {
        if (index < 0 || index >= self.view().num_outputs) throw std::invalid_argument("no such row");
        auto* row = new std::vector<float>(self.view().num_inputs);
        self.unpack_row(index, row->data());
        nb::capsule owner(row, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
        return nb::ndarray<nb::numpy, float, nb::ndim<1>>(row->data(), {row->size()}, owner);
      });
}

void bind_kv_pool(nb::module_& module) {
  nb::class_<KvPool>(module, "KvPool")
      .def(
          "__init__",
          [](KvPool* self, const std::vector<std::string>& formats, int num_blocks, int num_kv_heads, int head_dim,
             const std::vector<int>& windows, int num_local_blocks) {
            if (formats.empty() || num_blocks < 1 || num_kv_heads < 1 || head_dim < kLanes || head_dim % kLanes != 0)
              throw std::invalid_argument("a KV pool needs layers, blocks, heads and a head size that 16 divides");
            if (num_local_blocks < 0) throw std::invalid_argument("there cannot be fewer than no local blocks");
            new (self) KvPool(formats, num_blocks, num_kv_heads, head_dim, windows, num_local_blocks);
          },
          "formats"_a, "num_blocks"_a, "num_kv_heads"_a, "head_dim"_a, "windows"_a = std::vector<int>{},
          "num_local_blocks"_a = 0)
      .def_prop_ro("num_local_blocks", &KvPool::num_local_blocks)
      .def_prop_ro("bytes_per_local_block", &KvPool::bytes_per_local_block)
      .def("copy_local_block",
           [](KvPool& self, int source, int target) {
             if (std::min(source, target) < 0 || std::max(source, target) >= self.num_local_blocks())
               throw std::invalid_argument("a local block number lies outside the pool");
             self.copy_local_block(source, target);
           })
      .def_prop_ro("num_blocks", &KvPool::num_blocks)
      .def_prop_ro("bytes_per_block", &KvPool::bytes_per_block)
      .def("copy_block",
           [](KvPool& self, int source, int target) {
             if (std::min(source, target) < 0 || std::max(source, target) >= self.num_blocks())
               throw std::invalid_argument("a block number lies outside the pool");
             self.copy_block(source, target);
           })
      .def(
          "read_block",
          [](const KvPool& self, int block, MutableBytes out, bool local) {
            check_block(self, block, out.shape(0), local);
            self.read_block(block, out.data(), local);
          },
          "block"_a, "out"_a, "local"_a = false)
      .def(
          "write_block",
          [](KvPool& self, int block, Bytes bytes, bool local) {
            check_block(self, block, bytes.shape(0), local);
            self.write_block(block, bytes.data(), local);
          },
          "block"_a, "content"_a, "local"_a = false);
}

void bind_roofline(nb::module_& module) {
  module.def(
      "measure_read_bandwidth",
      [](size_t num_bytes, int num_threads, int repeats) {
        if (num_bytes < 1 || num_threads < 1 || repeats < 1) throw std::invalid_argument("sizes must be at least 1");
        return measure_read_bandwidth(num_bytes, num_threads, repeats);
      },
      "num_bytes"_a, "num_threads"_a, "repeats"_a, nb::call_guard<nb::gil_scoped_release>());
  module.def(
      "measure_peak",
      [](const std::string& table, const std::string& kind, int num_threads, int repeats) {
        if (num_threads < 1 || repeats < 1) throw std::invalid_argument("sizes must be at least 1");
        return measure_peak(table, kind, num_threads, repeats);
      },
      "table"_a, "kind"_a, "num_threads"_a, "repeats"_a, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

}  // namespace vivace

NB_MODULE(_native, module) {
  vivace::bind_memory(module);
  vivace::bind_kv_pool(module);
  vivace::bind_program(module);
  vivace::bind_roofline(module);
  module.def("available_isas", [] {
    std::vector<std::string> names;
    for (const auto* table : vivace::available_tables()) names.emplace_back(table->name);
    return names;
  });
}
