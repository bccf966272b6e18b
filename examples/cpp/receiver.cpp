// Takes callbacks whose signatures are right: receiver PORT, the secret in SORAKA_SECRET.
#include <httplib.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <cstdlib>
#include <ctime>
#include <iostream>
#include <mutex>
#include <set>
#include <sstream>
#include <string>

constexpr long kToleranceS = 300;
constexpr size_t kMaxBody = 1 << 20;

std::string to_base64(const unsigned char* data, size_t size) {
  std::string text(4 * ((size + 2) / 3) + 1, '\0');
  text.resize(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), data, size));
  return text;
}

std::string from_base64(const std::string& text) {
  std::string data(text.size(), '\0');
  const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(data.data()),
                                   reinterpret_cast<const unsigned char*>(text.data()), text.size());
  if (size <= 0) throw std::invalid_argument("SORAKA_SECRET is no secret");
  data.resize(size - std::count(text.begin(), text.end(), '='));
  return data;
}

bool genuine(const std::string& key, const std::string& id, const std::string& timestamp,
             const std::string& signatures, const std::string& body) {
  if (id.empty() || timestamp.empty() || timestamp.size() > 11 ||
      timestamp.find_first_not_of("0123456789") != std::string::npos ||
      std::labs(std::time(nullptr) - std::stol(timestamp)) > kToleranceS) {
    return false;
  }
  const std::string content = id + "." + timestamp + "." + body;
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.data(), key.size(),
       reinterpret_cast<const unsigned char*>(content.data()), content.size(), mac, &size);
  const std::string right = "v1," + to_base64(mac, size);
  std::istringstream given(signatures);  // several while the secret changes
  for (std::string one; given >> one;) {
    if (one.size() == right.size() &&
        CRYPTO_memcmp(one.data(), right.data(), right.size()) == 0) {  // in constant time
      return true;
    }
  }
  return false;
}

int main(int, char** argv) {
  const std::string secret = std::getenv("SORAKA_SECRET");
  const std::string key = from_base64(secret.substr(secret.rfind("whsec_", 0) == 0 ? 6 : 0));
  std::mutex lock;
  std::set<std::string> done;  // a table of yours, with what the callback changes
  httplib::Server server;
  server.set_payload_max_length(kMaxBody);
  server.Post(".*", [&](const httplib::Request& request, httplib::Response& response) {
    const std::string id = request.get_header_value("webhook-id");
    if (!genuine(key, id, request.get_header_value("webhook-timestamp"),
                 request.get_header_value("webhook-signature"), request.body)) {
      response.status = 401;  // tried again later
      return;
    }
    const std::lock_guard<std::mutex> guard(lock);
    if (done.insert(id).second) {  // it may come twice
      std::cout << id << " " << request.body << std::endl;
    }
    response.set_content(R"({"result": true})", "application/json");
  });
  return server.listen("127.0.0.1", std::stoi(argv[1])) ? 0 : 1;
}
