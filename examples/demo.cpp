// Three requests: JSON, images in float32, a language model's logits in bfloat16.
//     g++ -std=c++17 -o demo examples/demo.cpp -lcurl && ./demo http://127.0.0.1:8000
// It needs libcurl (on Debian: libcurl4-openssl-dev), and a little-endian machine.
#include <curl/curl.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

static size_t append(char *data, size_t, size_t size, void *text) {
  static_cast<std::string *>(text)->append(data, size);
  return size;
}

static void show(const std::string &url, const char *name, const char *type, const std::string &body) {
  std::string answer;
  long status = 0;
  CURL *curl = curl_easy_init();
  curl_slist *headers = curl_slist_append(nullptr, ("Content-Type: " + std::string(type)).c_str());
  headers = curl_slist_append(headers, "Accept: application/json");
  curl_easy_setopt(curl, CURLOPT_URL, url.c_str());
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
  curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
  curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data());
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, append);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer);
  CURLcode code = curl_easy_perform(curl);
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  curl_slist_free_all(headers);
  curl_easy_cleanup(curl);
  if (code != CURLE_OK) throw std::runtime_error(curl_easy_strerror(code));
  if (status != 200) throw std::runtime_error(std::to_string(status) + ": " + answer);
  // A program with a JSON library would use it. NaN and infinities are texts, "NaN" or
  // "Infinity", which stod reads, too.
  size_t start = answer.find("\"loss\":") + 7;
  std::printf("%-14s %.4f\n", name, std::stod(answer.substr(start + (answer[start] == '"'))));
}

// Numbers from 0 to 10 that look like random ones.
static float logit(int64_t i) { return static_cast<float>(i * 7919 % 1009 / 100.0); }

template <typename T> static std::string bytes(const std::vector<T> &values) {
  return {reinterpret_cast<const char *>(values.data()), values.size() * sizeof(T)};
}

// A body of safetensors: the header's length in 8 bytes, the header, labels, logits.
template <typename T>
static std::string safetensors(const std::string &dtype, const std::string &shape, const std::vector<T> &logits,
                               const std::string &label_shape, size_t count, int64_t classes) {
  std::vector<int64_t> labels(count);
  for (size_t i = 0; i < count; i++) labels[i] = static_cast<int64_t>(i) * 31 % classes;
  std::string middle = std::to_string(8 * count), end = std::to_string(8 * count + sizeof(T) * logits.size());
  std::string header = R"({"labels":{"dtype":"I64","shape":)" + label_shape + R"(,"data_offsets":[0,)" + middle +
                       R"(]},"logits":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
                       middle + "," + end + "]}}";
  return bytes(std::vector<uint64_t>{header.size()}) + header + bytes(labels) + bytes(logits);
}

int main(int, char **arguments) {
  std::string url = std::string(arguments[1]) + "/v1/cross_entropy?outputs=loss";
  const char *rows = "[[0,0,0,0,0], [0,0,1,1,0], [1,3,2,3,0], [0,0,0,0,0]]";
  show(url, "four rows", "application/json", R"({"logits": )" + std::string(rows) + R"(, "labels": [1,4,3,2]})");

  std::vector<float> images(4 * 3 * 256 * 256);
  for (size_t i = 0; i < images.size(); i++) images[i] = logit(i);
  show(url, "images", "application/x-safetensors",
       safetensors("F32", "[4,3,256,256]", images, "[4,256,256]", 4 * 256 * 256, 3));

  std::vector<uint16_t> tokens(64 * 32000);
  for (size_t i = 0; i < tokens.size(); i++) {
    float value = logit(i);  // bfloat16 is the upper half of float32
    std::memcpy(&tokens[i], reinterpret_cast<const char *>(&value) + 2, 2);
  }
  show(url, "language model", "application/x-safetensors",
       safetensors("BF16", "[64,32000]", tokens, "[64]", 64, 32000));
}
