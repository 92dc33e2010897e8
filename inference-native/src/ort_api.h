// Calls functions of ort_abi.h in the table of a library.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>

#include "ort_abi.h"

namespace whetstone {

template <class T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

class Api {
 public:
  explicit Api(ort::Table table) : table_(table) {}

  template <class Signature>
  Signature* operator[](ort::Function<Signature> function) const {
    return reinterpret_cast<Signature*>(table_[function.position]);
  }

  // Throws what the library says.
  template <class... Parameters, class... Arguments>
  void call(ort::Fallible<Parameters...> function, Arguments... arguments) const {
    check((*this)[function](arguments...));
  }

  void check(ort::Status* status) const {
    if (status == nullptr) return;
    std::runtime_error error((*this)[ort::GetErrorMessage](status));
    (*this)[ort::ReleaseStatus](status);
    throw error;
  }

  // Owns what one of its functions has made.
  template <class T>
  Owned<T> own(T* made, ort::Function<void(T*)> release) const {
    return {made, (*this)[release]};
  }

 private:
  ort::Table table_;
};

}  // namespace whetstone
