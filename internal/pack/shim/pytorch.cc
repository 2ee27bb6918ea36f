// The C functions of engine.h over PyTorch: files of TorchScript, and unpacked
// packages that AOTInductor has compiled.
#include "engine.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

namespace {

using Tensors = std::vector<at::Tensor>;

struct Model {
  virtual ~Model() = default;
  virtual Tensors run(Tensors inputs) = 0;
};

// plain drops the places in PyTorch's source, which say nothing of the model.
template <class F>
const char* plain(F f) {
  return guarded([&]() -> std::string {
    try {
      return f();
    } catch (const c10::Error& e) {
      return e.what_without_backtrace();
    }
  });
}

// flatten lists the tensors of a result in their order.
void flatten(const c10::IValue& value, Tensors* all) {
  if (value.isTensor()) {
    all->push_back(value.toTensor());
  } else if (value.isTuple()) {
    for (const auto& element : value.toTupleRef().elements()) {
      flatten(element, all);
    }
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      flatten(element, all);
    }
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      flatten(entry.value(), all);
    }
  } else if (value.isScalar()) {
    all->push_back(at::scalar_tensor(value.toScalar(), value.isInt() ? at::kLong : value.isBool() ? at::kBool : at::kDouble));
  } else {
    throw std::runtime_error("the model's result holds a " + value.tagKind() + ", which cannot be served");
  }
}

struct Script : Model {
  torch::jit::Module module;
  std::string method, reset;

  Script(const char* file, const char* m, const char* r) : module(torch::jit::load(file, c10::kCPU)), method(m), reset(r) {
    module.eval();
    for (const std::string& name : {method, reset}) {
      if (!name.empty() && !module.find_method(name)) {
        std::string all;
        for (const auto& one : module.get_methods()) {
          all += " " + one.name();
        }
        throw std::runtime_error("the model has no method " + name + ", it has" + all);
      }
    }
  }

  Tensors run(Tensors inputs) override {
    if (!reset.empty()) {
      module.get_method(reset)({});
    }
    torch::jit::Method called = module.get_method(method);
    const auto& arguments = called.function().getSchema().arguments();
    std::vector<c10::IValue> values;
    for (size_t i = 0; i < inputs.size(); i++) {
      // What the model takes as a number is sent as a tensor without dimensions.
      const at::Tensor& t = inputs[i];
      bool number = i + 1 < arguments.size() && t.numel() == 1;
      if (number && arguments[i + 1].type()->kind() == c10::TypeKind::IntType) {
        values.emplace_back(t.item().toLong());
      } else if (number && arguments[i + 1].type()->kind() == c10::TypeKind::FloatType) {
        values.emplace_back(t.item().toDouble());
      } else if (number && arguments[i + 1].type()->kind() == c10::TypeKind::BoolType) {
        values.emplace_back(t.item().toBool());
      } else {
        values.emplace_back(t);
      }
    }
    Tensors all;
    flatten(called(std::move(values)), &all);
    return all;
  }
};

struct Package : Model {
  torch::inductor::AOTIModelPackageLoader loader;

  Package(const char* file, const char* model) : loader(file, model) {}

  Tensors run(Tensors inputs) override {
    return loader.run(inputs);
  }
};

struct Session {
  std::unique_ptr<Model> model;
  Tensors outputs;
};

} // namespace

extern "C" {

const char* oscine_load(const char* file, const char* method, const char* reset, int64_t threads, void** session) {
  return plain([&]() -> std::string {
    at::set_num_threads(static_cast<int>(threads));
    if (at::get_num_interop_threads() != 1) { // it can be set once
      at::set_num_interop_threads(1);
    }
    c10::InferenceMode guard;
    auto s = std::make_unique<Session>();
    if (std::filesystem::is_directory(file)) {
      s->model = std::make_unique<Package>(file, method);
    } else {
      s->model = std::make_unique<Script>(file, method, reset);
    }
    *session = s.release();
    return "";
  });
}

// Neither format tells the shapes of what a model takes and gives.
int64_t oscine_count(void*, int64_t) {
  return -1;
}

const char* oscine_describe(void*, int64_t, int64_t, oscine_tensor*) {
  return "is not described";
}

const char* oscine_run(void* session, oscine_tensor* inputs, int64_t n, int64_t* outputs) {
  return plain([&]() -> std::string {
    c10::InferenceMode guard;
    auto s = static_cast<Session*>(session);
    Tensors tensors;
    for (int64_t i = 0; i < n; i++) {
      const oscine_tensor& t = inputs[i];
      tensors.push_back(at::from_blob(t.data, at::IntArrayRef(t.dims, t.rank), at::TensorOptions(static_cast<at::ScalarType>(t.type))));
    }
    s->outputs.clear();
    s->outputs = s->model->run(std::move(tensors));
    *outputs = static_cast<int64_t>(s->outputs.size());
    return "";
  });
}

const char* oscine_output(void* session, int64_t i, oscine_tensor* t) {
  return plain([&]() -> std::string {
    at::Tensor& of = static_cast<Session*>(session)->outputs.at(i);
    if (of.dim() > 16) {
      return "has " + std::to_string(of.dim()) + " dimensions, at most 16 can be served";
    }
    of = of.contiguous();
    t->type = static_cast<int64_t>(of.scalar_type());
    t->rank = of.dim();
    std::copy(of.sizes().begin(), of.sizes().end(), t->dims);
    t->data = of.data_ptr();
    t->bytes = static_cast<int64_t>(of.nbytes());
    t->open = 0;
    return "";
  });
}

void oscine_close(void* session) {
  delete static_cast<Session*>(session);
}
}
