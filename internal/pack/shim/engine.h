// What internal/serve/engine/shim calls of an engine that has no C API. Every
// function that can fail returns null, or why: a text that the next call on the
// same thread replaces. A session is used by one thread at a time.
#pragma once

#include <cstdint>
#include <exception>
#include <string>

extern "C" {

// Numbers, all of one size, so that the caller needs no C compiler's layout.
struct oscine_tensor {
  int64_t type; // c10's ScalarType
  int64_t rank;
  int64_t dims[16];
  void* data;
  int64_t bytes;
  int64_t open; // of a described tensor: its dimensions are upper bounds
};

// oscine_load loads the method of the model in a file, to compute with a number of
// threads. reset names a method that is called before each run, or is empty.
const char* oscine_load(const char* file, const char* method, const char* reset, int64_t threads, void** session);

// oscine_count says how many inputs or outputs the format states; -1: it is silent.
int64_t oscine_count(void* session, int64_t outputs);

// oscine_describe says what the format states of an input or output.
const char* oscine_describe(void* session, int64_t outputs, int64_t i, oscine_tensor* t);

// oscine_run computes outputs, which live until the next run, and counts them.
const char* oscine_run(void* session, oscine_tensor* inputs, int64_t n, int64_t* outputs);

// oscine_output gives an output of the last run.
const char* oscine_output(void* session, int64_t i, oscine_tensor* t);

void oscine_close(void* session);
}

inline thread_local std::string oscine_text;

// guarded calls what may fail: it returns a text, or throws.
template <class F>
const char* guarded(F f) {
  try {
    oscine_text = f();
  } catch (const std::exception& e) {
    oscine_text = *e.what() ? e.what() : "an exception without a text";
  } catch (...) {
    oscine_text = "an exception of an unknown kind";
  }
  return oscine_text.empty() ? nullptr : oscine_text.c_str();
}
