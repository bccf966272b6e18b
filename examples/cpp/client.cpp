// A client of soraka's Thrift service: client HOST PORT TOPIC URL
//
// Shows each call and each error, then submits a message for each line of its standard input. A
// token, if one is needed, is in SORAKA_TOKEN.
#include <thrift/TApplicationException.h>
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>
#include <thrift/transport/TSocket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "Soraka.h"

using namespace soraka::client;
using apache::thrift::TApplicationException;
using apache::thrift::TException;
using apache::thrift::protocol::TBinaryProtocol;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TSocket;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kTimeoutMs = 10'000;  // longer than soraka takes to say that it is unavailable
constexpr milliseconds kPatience{60'000};
constexpr std::int64_t kHour = 3'600'000, kMinute = 60'000;
const std::string kUnknown = "01890a5d-ac96-774b-bcce-b302099a8057";

// The name of an error that stays, and its text, which for a wrong request begins with the field;
// "" for one after which the call is repeated.
std::string described(const TException& error) {
  if (auto* e = dynamic_cast<const InvalidRequest*>(&error)) {  // wrong, and stays wrong
    return "InvalidRequest: " + e->em;
  }
  if (auto* e = dynamic_cast<const TopicNotFound*>(&error)) {  // an operator has to make the topic
    return "TopicNotFound: " + e->em;
  }
  if (auto* e = dynamic_cast<const MessageNotFound*>(&error)) {  // never was, or was forgotten
    return "MessageNotFound: " + e->em;
  }
  if (auto* e = dynamic_cast<const TooLate*>(&error)) {  // called, cancelled or dead by now
    return "TooLate: " + e->em;
  }
  if (auto* e = dynamic_cast<const KeyReused*>(&error)) {  // it stands for another message
    return "KeyReused: " + e->em;
  }
  if (auto* e = dynamic_cast<const NotAuthenticated*>(&error)) {  // no token, or a wrong one
    return "NotAuthenticated: " + e->em;
  }
  if (auto* e = dynamic_cast<const NotAllowed*>(&error)) {  // the token lacks the right
    return "NotAllowed: " + e->em;
  }
  return "";
}

// Opened when needed, and anew after it broke.
class Connection {
 public:
  Connection(std::string host, int port) : host_(std::move(host)), port_(port) {}

  // Asks until there is an answer. Each call carries ids, so that it is safe to repeat.
  template <typename Ask>
  auto call(Ask ask) {
    const auto deadline = steady_clock::now() + kPatience;
    for (milliseconds pause{100};;) {
      milliseconds wait = pause;
      try {
        open();
        return ask(*client_);
      } catch (const Unavailable& error) {
        wait = milliseconds{error.retry_after};
        if (steady_clock::now() + wait > deadline) throw;
      } catch (const TApplicationException&) {
        throw;  // of another version of the IDL
      } catch (const TException& error) {
        if (!described(error).empty()) throw;
        // what was asked may have been done, or not; a late answer must not be the next
        client_.reset();
        pause = std::min(2 * pause, milliseconds{2000});
        if (steady_clock::now() + wait > deadline) throw;
      }
      std::this_thread::sleep_for(wait);
    }
  }

 private:
  void open() {
    if (client_) return;
    auto socket = std::make_shared<TSocket>(host_, port_);
    socket->setConnTimeout(kTimeoutMs);
    socket->setRecvTimeout(kTimeoutMs);
    socket->setSendTimeout(kTimeoutMs);
    auto transport = std::make_shared<TFramedTransport>(socket);
    transport->open();
    auto client = std::make_unique<SorakaClient>(std::make_shared<TBinaryProtocol>(transport));
    if (const char* token = std::getenv("SORAKA_TOKEN")) client->authenticate(token);
    client_ = std::move(client);  // now that it has its token
  }

  std::string host_;
  int port_;
  std::unique_ptr<SorakaClient> client_;
};

class Example {
 public:
  Example(const std::string& host, int port, std::string topic, std::string url)
      : soraka_(host, port), topic_(std::move(topic)), url_(std::move(url)) {}

  // Each call and each error.
  void tour() {
    const Submission one = submission("one", kHour, "{}");
    const std::string id = submit(one);
    std::cout << "submitted " << id << std::endl;
    if (submit(one) == id) std::cout << "sent again, the same" << std::endl;

    const Submission wrong = submission("four", -1, "{}");
    const std::vector<Submission> batch = {submission("two", kHour, "{}"),
                                           submission("three", kHour, "{}"), wrong};
    std::cout << "batch";
    for (const SubmitResult& result : soraka_.call([&](SorakaClient& client) {
           std::vector<SubmitResult> results;
           client.submitBatch(results, batch);
           return results;
         })) {
      std::cout << ' ' << result.ec;
    }
    std::cout << std::endl;

    std::cout << "is " << found(id).state << std::endl;
    soraka_.call([&](SorakaClient& client) {
      return client.addTime(topic_, id, kMinute, "later-" + id);
    });
    std::cout << "later by a minute" << std::endl;
    soraka_.call([&](SorakaClient& client) { return client.cancel(topic_, id, "cancel-" + id); });
    std::cout << "is " << found(id).state << std::endl;

    refused([&](SorakaClient& client) {
      return client.addTime(topic_, id, kMinute, "again-" + id);
    });
    refused([&](SorakaClient& client) {
      std::string other;
      client.submit(other, submission("one", 1, "{}"));
      return other;
    });
    refused([&](SorakaClient& client) {
      std::string other;
      client.submit(other, wrong);
      return other;
    });
    refused([&](SorakaClient& client) {
      MessageInfo info;
      client.get(info, kUnknown);
      return info;
    });
    refused([&](SorakaClient& client) {
      return client.cancel(topic_ + ".none", kUnknown, "none");
    });
    std::cout << "ready" << std::endl;
  }

  void submit_lines() {
    std::string line;
    for (int number = 0; std::getline(std::cin, line); number++) {
      std::cout << submit(submission(std::to_string(number), 0, line)) << std::endl;
    }
  }

 private:
  Submission submission(const std::string& name, std::int64_t delay, const std::string& params) {
    Callback callback;
    callback.request_type = RequestType::POST;
    callback.url = url_;
    callback.__set_params(params);
    Submission made;
    made.topic_name = topic_;
    made.callback = callback;
    made.__set_delay_time(delay);
    made.__set_idempotency_key(run_ + "-" + name);
    return made;
  }

  std::string submit(const Submission& message) {
    return soraka_.call([&](SorakaClient& client) {
      std::string id;
      client.submit(id, message);
      return id;
    });
  }

  // Just submitted, it may not be in the store yet.
  MessageInfo found(const std::string& id) {
    for (const auto deadline = steady_clock::now() + kPatience;;) {
      try {
        return soraka_.call([&](SorakaClient& client) {
          MessageInfo info;
          client.get(info, id);
          return info;
        });
      } catch (const MessageNotFound&) {
        if (steady_clock::now() > deadline) throw;
      }
      std::this_thread::sleep_for(milliseconds{100});
    }
  }

  template <typename Ask>
  void refused(Ask ask) {
    try {
      soraka_.call(ask);
      std::cout << "accepted" << std::endl;
    } catch (const TException& error) {
      if (described(error).empty()) throw;
      std::cout << described(error) << std::endl;
    }
  }

  Connection soraka_;
  std::string topic_, url_;
  std::string run_ = "cpp-" + std::to_string(getpid()) + "-" +
                     std::to_string(std::chrono::system_clock::now().time_since_epoch().count());
};

int main(int, char** argv) {
  apache::thrift::GlobalOutput.setOutputFunction([](const char*) {});  // errors are told here
  try {
    Example example(argv[1], std::stoi(argv[2]), argv[3], argv[4]);
    example.tour();
    example.submit_lines();
  } catch (const TException& error) {
    const std::string text = described(error);
    std::cerr << (text.empty() ? error.what() : text) << std::endl;
    return 1;
  }
}
