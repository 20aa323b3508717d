// The only C++ of Ophidian: one libtorch autograd function whose forward and backward call back into Rust, and the
// few functions of libtorch that tch leaves out.
// Tensors cross as pointers to at::Tensor, lists as std::vector<at::Tensor>; errors cross as messages.

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/csrc/autograd/custom_function.h>

#include <torch/version.h>

#include <dlfcn.h>
#ifdef __GLIBC__
#include <malloc.h>
#include <sys/mman.h>
#endif

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

using List = std::vector<at::Tensor>;

extern "C" {
// In Rust. Messages are null on success, else owned by Rust and given back with ophidian_message_free.
char* ophidian_op_forward(const void* op, bool training, const List* inputs, List* outputs, List* saved);
char* ophidian_op_backward(const void* op, const List* saved, const List* grads, List* results);
void ophidian_op_drop(void* op);
void ophidian_message_free(char* message);
}

namespace {

void check(char* message) {
  if (message == nullptr) return;
  std::string text(message);
  ophidian_message_free(message);
  throw std::runtime_error(text);
}

// Keeps the Rust op alive as long as the graph needs it.
struct Op : torch::CustomClassHolder {
  explicit Op(void* op) : op(op) {}
  ~Op() override { ophidian_op_drop(op); }
  void* op;
};

// libtorch's own allocator, with a count of the bytes in use.
struct Meter final : c10::Allocator {
  struct Block {
    Block(void* data, int64_t size) : data(data), size(size) {}
    ~Block() {
      in_use -= size;
      c10::free_cpu(data);
    }
    void* data;
    int64_t size;
  };
  static inline std::atomic<int64_t> in_use{0}, peak{0};

  c10::DataPtr allocate(size_t size) override {
    auto* block = new Block(c10::alloc_cpu(size), static_cast<int64_t>(size));
    int64_t now = in_use += block->size;
    for (int64_t seen = peak; seen < now && !peak.compare_exchange_weak(seen, now);) {
    }
    auto release = [](void* block) { delete static_cast<Block*>(block); };
    return {block->data, block, release, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }
};

struct RustFunction : torch::autograd::Function<RustFunction> {
  static torch::autograd::variable_list forward(
      torch::autograd::AutogradContext* ctx, at::TensorList inputs, c10::intrusive_ptr<Op> op, bool training) {
    List list(inputs.begin(), inputs.end()), outputs, saved;
    check(ophidian_op_forward(op->op, training, &list, &outputs, &saved));
    ctx->saved_data["inputs"] = static_cast<int64_t>(list.size());
    ctx->saved_data["op"] = c10::IValue::make_capsule(op);
    ctx->set_materialize_grads(false);
    list.insert(list.end(), saved.begin(), saved.end());
    if (training) ctx->save_for_backward(list);
    return outputs;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* ctx, torch::autograd::variable_list grads) {
    if (at::GradMode::is_enabled()) {
      throw std::runtime_error("this op has no second derivative: call backward without create_graph");
    }
    // Throws if the graph was used before, or if a saved tensor was changed in place.
    List saved = ctx->get_saved_variables();
    auto inputs = static_cast<size_t>(ctx->saved_data["inputs"].toInt());
    auto op = c10::static_intrusive_pointer_cast<Op>(ctx->saved_data["op"].toCapsule());
    List results;
    check(ophidian_op_backward(op->op, &saved, &grads, &results));
    results.resize(inputs + 2);  // and nothing for `op` and `training`
    return results;
  }
};

char* copy(const char* text) { return strdup(text); }

}  // namespace

extern "C" {

// Applies the op (which it takes over). Returns null, or a message to be freed with free().
char* ophidian_apply(void* rust_op, const at::Tensor* const* inputs, size_t count, List* outputs) {
  try {
    auto op = c10::make_intrusive<Op>(rust_op);
    List list;
    bool training = false;
    for (size_t i = 0; i < count; i++) {
      list.push_back(*inputs[i]);
      training |= at::GradMode::is_enabled() && inputs[i]->requires_grad();
    }
    *outputs = RustFunction::apply(at::TensorList(list), op, training);
    return nullptr;
  } catch (const std::exception& error) {
    return copy(error.what());
  } catch (...) {
    return copy("unknown C++ exception");
  }
}

List* ophidian_list_new() { return new List(); }
void ophidian_list_free(List* list) { delete list; }
size_t ophidian_list_len(const List* list) { return list->size(); }

// Null for an undefined tensor.
const at::Tensor* ophidian_list_get(const List* list, size_t i) {
  return (*list)[i].defined() ? &(*list)[i] : nullptr;
}

// Null pushes an undefined tensor.
void ophidian_list_push(List* list, const at::Tensor* tensor) {
  list->push_back(tensor == nullptr ? at::Tensor() : *tensor);
}

// Calls worker(data) on every thread of libtorch's pool.
void ophidian_broadcast(void (*worker)(const void*), const void* data) {
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t begin, int64_t end) {
    for (; begin < end; begin++) worker(data);
  });
}

size_t ophidian_threads() { return at::in_parallel_region() ? 1 : static_cast<size_t>(at::get_num_threads()); }

const char* ophidian_torch_version() { return TORCH_VERSION; }

// Where libtorch was loaded from, or null.
const char* ophidian_torch_path() {
  Dl_info info;
  return dladdr(reinterpret_cast<void*>(&at::get_num_threads), &info) ? info.dli_fname : nullptr;
}

// Whether the C library keeps freed memory (activations of every step would come from the system page by page), and that on
// huge pages, or gives every tensor back at once.
void ophidian_keep_memory(bool keep) {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, keep ? 1 << 30 : 1 << 17);
  mallopt(M_TRIM_THRESHOLD, keep ? 1 << 30 : 1 << 17);
  if (!keep) malloc_trim(0);
#ifdef MADV_HUGEPAGE
  // The heap takes room that is asked for once, is kept when it is freed, untouched, and has huge pages as it comes to be used.
  // libtorch's own switch aligns every tensor to a page instead, which glibc cannot put where the last one was.
  constexpr size_t kRoom = (1 << 30) - (64 << 20), kHuge = 2 << 20;
  void* room = keep ? malloc(kRoom) : nullptr;
  if (room != nullptr) {
    auto start = (reinterpret_cast<uintptr_t>(room) + kHuge - 1) / kHuge * kHuge;
    madvise(reinterpret_cast<void*>(start), kRoom - kHuge, MADV_HUGEPAGE);
    free(room);
  }
#endif
#endif
}

// Counts the bytes of CPU tensors made from now on; returns those that it counts already.
int64_t ophidian_meter_start() {
  static Meter meter;
  int64_t before = Meter::in_use;
  Meter::peak = before;
  c10::SetCPUAllocator(&meter, 1);
  return before;
}

// Most bytes in use since the start, beyond the `before` that it gave.
int64_t ophidian_meter_stop(int64_t before) {
  c10::SetCPUAllocator(c10::GetDefaultCPUAllocator(), 1);
  return Meter::peak - before;
}

// The most bytes that tensors on a GPU took since the last call with `reset`, which says nothing. False if there is no GPU.
bool ophidian_gpu_peak(int32_t device, bool reset, int64_t* bytes) {
  try {
    auto* allocator = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(c10::DeviceType::CUDA));
    if (allocator == nullptr || !allocator->initialized()) return false;
    auto index = static_cast<c10::DeviceIndex>(device);
    if (reset) {
      allocator->resetPeakStats(index);
    } else {
      // The first of its statistics is over pools of every size.
      *bytes = allocator->getDeviceStats(index).allocated_bytes[0].peak;
    }
    return true;
  } catch (...) {
    return false;
  }
}

// Opens libtorch's CUDA library, whose loading registers the backend; false if there is none. f32 is f32 then: libtorch lets
// cuDNN's convolutions, unlike matrix products, round what they read to 10 bits unless it is told otherwise.
bool ophidian_open_cuda(const char* name) {
  if (dlopen(name, RTLD_NOW | RTLD_GLOBAL) == nullptr) return false;
  for (auto op : {at::Float32Op::CONV, at::Float32Op::RNN}) {
    at::globalContext().setFloat32Precision(at::Float32Backend::CUDA, op, at::Float32Precision::IEEE);
  }
  return true;
}

// Moves a CPU tensor to pinned memory. Returns null, or a message to be freed with free().
char* ophidian_pin(at::Tensor* tensor) {
  try {
    *tensor = tensor->pin_memory();
    return nullptr;
  } catch (const std::exception& error) {
    return copy(error.what());
  } catch (...) {
    return copy("unknown C++ exception");
  }
}

// Whether operations on this thread are recorded for a backward.
bool ophidian_records_gradients() { return at::GradMode::is_enabled(); }

// The stream on which libtorch's CUDA backend runs this thread's work on a GPU. False if libtorch does not tell; the function
// is its own, of its stable interface, and only its CUDA library has it.
bool ophidian_cuda_stream(int32_t device, void** stream) {
  using Current = int32_t (*)(int32_t, void**);
  auto current = reinterpret_cast<Current>(dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream"));
  return current != nullptr && current(device, stream) == 0;
}

// Where autocast can be on.
constexpr at::DeviceType kAutocast[] = {at::kCPU, at::kCUDA};

// Turns autocast on or off on all of them; returns whether it was on.
bool ophidian_autocast_set(bool enabled) {
  bool before = at::autocast::is_autocast_enabled(at::kCPU);
  for (auto device : kAutocast) at::autocast::set_autocast_enabled(device, enabled);
  return before;
}

// Turns autocast to bfloat16 on; returns whether it was on.
bool ophidian_autocast_enter() {
  for (auto device : kAutocast) at::autocast::set_autocast_dtype(device, at::kBFloat16);
  at::autocast::set_autocast_cache_enabled(true);
  at::autocast::increment_nesting();
  return ophidian_autocast_set(true);
}

void ophidian_autocast_leave(bool before) {
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  ophidian_autocast_set(before);
}

// `tensors` holds parameters, gradients, first moments, second moments, steps: `count` each. `options`: learning rate,
// beta1, beta2, weight decay, eps. Returns null, or a message to be freed with free().
char* ophidian_fused_adamw(const at::Tensor* const* tensors, size_t count, const double* options) {
  try {
    at::NoGradGuard no_grad;
    List lists[5];
    for (size_t i = 0; i < 5 * count; i++) lists[i / count].push_back(*tensors[i]);
    for (auto& step : lists[4]) step.add_(1);  // the kernel reads the number of this step
    at::_fused_adamw_(lists[0], lists[1], lists[2], lists[3], {}, lists[4], options[0], options[1], options[2],
                      options[3], options[4], /*amsgrad=*/false, /*maximize=*/false);
    return nullptr;
  } catch (const std::exception& error) {
    return copy(error.what());
  } catch (...) {
    return copy("unknown C++ exception");
  }
}
}
