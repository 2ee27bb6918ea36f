// The C functions of engine.h over ExecuTorch's Module.
#include "engine.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <memory>
#include <utility>
#include <vector>

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Method;
using executorch::runtime::Program;
using executorch::runtime::Tag;

// Of libexecutorch_threadpool, whose header the wheel lacks.
namespace executorch::extension::threadpool {
class ThreadPool final {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
} // namespace executorch::extension::threadpool

namespace {

struct Session {
  std::unique_ptr<Module> module;
  std::string method;
  Method* loaded;
  std::vector<EValue> outputs;
};

std::string failed(const std::string& what, Error e) {
  return what + ": " + executorch::runtime::to_string(e);
}

std::string describe(oscine_tensor* t, const executorch::aten::Tensor& of) {
  if (of.dim() > 16) {
    return "has " + std::to_string(of.dim()) + " dimensions, at most 16 can be served";
  }
  t->type = static_cast<int64_t>(of.scalar_type());
  t->rank = of.dim();
  for (ssize_t i = 0; i < of.dim(); i++) {
    t->dims[i] = of.size(i);
    if (of.dim_order()[i] != i) {
      return "has its dimensions in another order in memory (channels last): export it with the contiguous one";
    }
  }
  t->data = const_cast<void*>(of.const_data_ptr());
  t->bytes = static_cast<int64_t>(of.nbytes());
  t->open = of.unsafeGetTensorImpl()->shape_dynamism() != executorch::aten::TensorShapeDynamism::STATIC;
  return "";
}

} // namespace

extern "C" {

const char* oscine_load(const char* file, const char* method, const char* reset, int64_t threads, void** session) {
  return guarded([&]() -> std::string {
    if (*reset) {
      return "ExecuTorch's models keep no state that the option reset could put back: leave it out";
    }
    executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(static_cast<uint32_t>(threads));
    auto s = std::make_unique<Session>();
    s->module = std::make_unique<Module>(file, Module::LoadMode::Mmap);
    s->method = method;
    // Offsets in the file are checked before they are followed.
    if (Error e = s->module->load(Program::Verification::InternalConsistency); e != Error::Ok) {
      return failed("the program", e);
    }
    auto names = s->module->method_names();
    if (!names.ok()) {
      return failed("the program's methods", names.error());
    }
    if (!names->count(s->method)) {
      std::string all;
      for (const auto& name : *names) {
        all += " " + name;
      }
      return "the program has no method " + s->method + ", it has" + all + ": name one by the option method";
    }
    if (Error e = s->module->load_method(s->method); e != Error::Ok) {
      return failed("method " + s->method, e);
    }
    auto loaded = s->module->method(s->method); // the Module describes only what the file says
    if (!loaded.ok()) {
      return failed("method " + s->method, loaded.error());
    }
    s->loaded = *loaded;
    *session = s.release();
    return "";
  });
}

int64_t oscine_count(void* session, int64_t outputs) {
  auto s = static_cast<Session*>(session);
  return static_cast<int64_t>(outputs ? s->loaded->outputs_size() : s->loaded->inputs_size());
}

const char* oscine_describe(void* session, int64_t outputs, int64_t i, oscine_tensor* t) {
  return guarded([&]() -> std::string {
    auto s = static_cast<Session*>(session);
    const EValue& value = outputs ? s->loaded->get_output(i) : s->loaded->get_input(i);
    if (!value.isTensor()) {
      return "is no tensor, which cannot be served";
    }
    return describe(t, value.toTensor());
  });
}

const char* oscine_run(void* session, oscine_tensor* inputs, int64_t n, int64_t* outputs) {
  return guarded([&]() -> std::string {
    auto s = static_cast<Session*>(session);
    std::vector<TensorPtr> tensors;
    std::vector<EValue> values;
    for (int64_t i = 0; i < n; i++) {
      const oscine_tensor& t = inputs[i];
      tensors.push_back(executorch::extension::from_blob(
          t.data, std::vector<executorch::aten::SizesType>(t.dims, t.dims + t.rank), static_cast<ScalarType>(t.type)));
      values.emplace_back(*tensors.back());
    }
    s->outputs.clear();
    auto result = s->module->execute(s->method, values);
    if (!result.ok()) {
      return failed("run", result.error());
    }
    s->outputs = std::move(*result);
    *outputs = static_cast<int64_t>(s->outputs.size());
    return "";
  });
}

const char* oscine_output(void* session, int64_t i, oscine_tensor* t) {
  return guarded([&]() -> std::string {
    const EValue& value = static_cast<Session*>(session)->outputs.at(i);
    if (!value.isTensor()) {
      return "is no tensor";
    }
    return describe(t, value.toTensor());
  });
}

void oscine_close(void* session) {
  delete static_cast<Session*>(session);
}
}
