package example;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.stream.Collectors;
import org.apache.thrift.TApplicationException;
import org.apache.thrift.TException;
import org.apache.thrift.protocol.TBinaryProtocol;
import org.apache.thrift.transport.TSocket;
import org.apache.thrift.transport.TTransport;
import org.apache.thrift.transport.layered.TFramedTransport;
import soraka.client.Callback;
import soraka.client.InvalidRequest;
import soraka.client.KeyReused;
import soraka.client.MessageInfo;
import soraka.client.MessageNotFound;
import soraka.client.NotAllowed;
import soraka.client.NotAuthenticated;
import soraka.client.RequestType;
import soraka.client.Soraka;
import soraka.client.Submission;
import soraka.client.SubmitResult;
import soraka.client.TooLate;
import soraka.client.TopicNotFound;
import soraka.client.Unavailable;

/**
 * A client of soraka's Thrift service: Client HOST PORT TOPIC URL
 *
 * <p>Shows each call and each error, then submits a message for each line of its standard input. A
 * token, if one is needed, is in SORAKA_TOKEN.
 */
public final class Client {
  /** Longer than soraka takes to say that it is unavailable. */
  private static final int TIMEOUT_MS = 10_000;

  private static final long PATIENCE_MS = 60_000;
  private static final long HOUR = 3_600_000;
  private static final long MINUTE = 60_000;
  private static final String UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057";

  private final Connection soraka;
  private final String topic;
  private final String url;
  private final String run = "java-" + ProcessHandle.current().pid() + "-" + System.nanoTime();

  private Client(Connection soraka, String topic, String url) {
    this.soraka = soraka;
    this.topic = topic;
    this.url = url;
  }

  public static void main(String[] args) throws Exception {
    try (Connection soraka = new Connection(args[0], Integer.parseInt(args[1]))) {
      Client client = new Client(soraka, args[2], args[3]);
      client.tour();
      client.submitLines();
    } catch (TException error) {
      System.err.println(described(error) == null ? error : described(error));
      System.exit(1);
    }
  }

  private void submitLines() throws Exception {
    var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    String line;
    for (int number = 0; (line = lines.readLine()) != null; number++) {
      Submission message = submission(run + "-" + number, 0, line);
      String id = soraka.call(client -> client.submit(message));
      System.out.println(id);
    }
  }

  /** Each call and each error. */
  private void tour() throws TException, InterruptedException {
    Submission one = submission(run + "-one", HOUR, "{}");
    String id = soraka.call(client -> client.submit(one));
    System.out.println("submitted " + id);
    if (soraka.call(client -> client.submit(one)).equals(id)) {
      System.out.println("sent again, the same");
    }

    Submission wrong = submission(run + "-four", -1, "{}");
    List<Submission> batch =
        List.of(
            submission(run + "-two", HOUR, "{}"), submission(run + "-three", HOUR, "{}"), wrong);
    List<SubmitResult> results = soraka.call(client -> client.submitBatch(batch));
    System.out.println(
        results.stream()
            .map(result -> String.valueOf(result.getEc()))
            .collect(Collectors.joining(" ", "batch ", "")));

    System.out.println("is " + found(id).getState());
    soraka.call(client -> client.addTime(topic, id, MINUTE, "later-" + id));
    System.out.println("later by a minute");
    soraka.call(client -> client.cancel(topic, id, "cancel-" + id));
    System.out.println("is " + found(id).getState());

    refused(client -> client.addTime(topic, id, MINUTE, "again-" + id));
    refused(client -> client.submit(submission(run + "-one", 1, "{}")));
    refused(client -> client.submit(wrong));
    refused(client -> client.get(UNKNOWN));
    refused(client -> client.cancel(topic + ".none", UNKNOWN, "none"));
    System.out.println("ready");
  }

  private Submission submission(String key, long delay, String params) {
    Callback callback = new Callback(RequestType.POST, url).setParams(params);
    return new Submission(topic, callback).setDelay_time(delay).setIdempotency_key(key);
  }

  /** Just submitted, it may not be in the store yet. */
  private MessageInfo found(String id) throws TException, InterruptedException {
    for (long deadline = System.nanoTime() + PATIENCE_MS * 1_000_000; ; Thread.sleep(100)) {
      try {
        return soraka.call(client -> client.get(id));
      } catch (MessageNotFound error) {
        if (System.nanoTime() > deadline) {
          throw error;
        }
      }
    }
  }

  private void refused(Call<?> ask) throws TException, InterruptedException {
    try {
      soraka.call(ask);
      System.out.println("accepted");
    } catch (TException error) {
      if (described(error) == null) {
        throw error;
      }
      System.out.println(described(error));
    }
  }

  /**
   * The name of an error that stays, and its text, which for a wrong request begins with the field;
   * null for one after which the call is repeated.
   */
  private static String described(TException error) {
    String text = null;
    if (error instanceof InvalidRequest e) { // wrong, and stays wrong
      text = e.getEm();
    } else if (error instanceof TopicNotFound e) { // an operator has to make the topic
      text = e.getEm();
    } else if (error instanceof MessageNotFound e) { // never was, or has been forgotten
      text = e.getEm();
    } else if (error instanceof TooLate e) { // called, cancelled or dead by now
      text = e.getEm();
    } else if (error instanceof KeyReused e) { // this key stands for another message
      text = e.getEm();
    } else if (error instanceof NotAuthenticated e) { // without a token, or with a wrong one
      text = e.getEm();
    } else if (error instanceof NotAllowed e) { // the token lacks the right
      text = e.getEm();
    }
    return text == null ? null : error.getClass().getSimpleName() + ": " + text;
  }

  private interface Call<T> {
    T ask(Soraka.Client client) throws TException;
  }

  /** Opened when needed, and anew after it broke. */
  private static final class Connection implements AutoCloseable {
    private final String host;
    private final int port;
    private TTransport transport;
    private Soraka.Client client;

    Connection(String host, int port) {
      this.host = host;
      this.port = port;
    }

    /** Asks until there is an answer. Each call carries ids, so that it is safe to repeat. */
    <T> T call(Call<T> call) throws TException, InterruptedException {
      long deadline = System.nanoTime() + PATIENCE_MS * 1_000_000;
      for (long pause = 100; ; ) {
        long wait = pause;
        try {
          open();
          return call.ask(client);
        } catch (TException error) {
          if (described(error) != null || error instanceof TApplicationException) {
            throw error; // the latter: of another version of the IDL
          } else if (error instanceof Unavailable unavailable) {
            wait = unavailable.getRetry_after();
          } else {
            // what was asked may have been done, or not; a late answer must not be the next
            close();
            pause = Math.min(2 * pause, 2000);
          }
          if (System.nanoTime() + wait * 1_000_000 > deadline) {
            throw error;
          }
        }
        Thread.sleep(wait);
      }
    }

    private void open() throws TException {
      if (transport != null) {
        return;
      }
      transport = new TFramedTransport(new TSocket(host, port, TIMEOUT_MS));
      transport.open();
      client = new Soraka.Client(new TBinaryProtocol(transport));
      String token = System.getenv("SORAKA_TOKEN");
      if (token != null) {
        try {
          client.authenticate(token);
        } catch (TException error) {
          close(); // else the next call would go without it
          throw error;
        }
      }
    }

    @Override
    public void close() {
      if (transport != null) {
        transport.close();
        transport = null;
      }
    }
  }
}
