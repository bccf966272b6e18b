package example;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Base64;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Takes callbacks whose signatures are right: Receiver PORT, the secret in SORAKA_SECRET. */
public final class Receiver {
  private static final long TOLERANCE_S = 300;
  private static final int MAX_BODY = 1 << 20;

  /** A table of yours, with what the callback changes. */
  private static final Set<String> DONE = ConcurrentHashMap.newKeySet();

  private Receiver() {}

  public static void main(String[] args) throws IOException {
    String secret = System.getenv("SORAKA_SECRET").replaceFirst("^whsec_", "");
    var key = new SecretKeySpec(Base64.getDecoder().decode(secret), "HmacSHA256");
    var address = new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0]));
    HttpServer server = HttpServer.create(address, 0);
    server.setExecutor(Executors.newFixedThreadPool(16));
    server.createContext(
        "/",
        exchange -> {
          try (exchange) {
            int status = receive(key, exchange);
            byte[] answer = (status == 200 ? "{\"result\": true}" : "").getBytes();
            exchange.sendResponseHeaders(status, answer.length == 0 ? -1 : answer.length);
            exchange.getResponseBody().write(answer);
          }
        });
    server.start();
  }

  private static int receive(SecretKeySpec key, HttpExchange exchange) throws IOException {
    if (!exchange.getRequestMethod().equals("POST")) {
      return 405;
    }
    byte[] body = exchange.getRequestBody().readNBytes(MAX_BODY + 1);
    if (body.length > MAX_BODY) {
      return 413;
    }
    String id = exchange.getRequestHeaders().getFirst("webhook-id");
    String timestamp = exchange.getRequestHeaders().getFirst("webhook-timestamp");
    String signatures = exchange.getRequestHeaders().getFirst("webhook-signature");
    if (!genuine(key, id, timestamp, signatures, body)) {
      return 401; // tried again later
    }
    if (DONE.add(id)) { // it may come twice
      System.out.println(id + " " + new String(body, StandardCharsets.UTF_8));
    }
    return 200;
  }

  private static boolean genuine(
      SecretKeySpec key, String id, String timestamp, String signatures, byte[] body) {
    if (id == null || id.isEmpty() || signatures == null) {
      return false;
    }
    if (timestamp == null || !timestamp.matches("[0-9]{1,11}")) {
      return false;
    }
    long age = System.currentTimeMillis() / 1000 - Long.parseLong(timestamp);
    if (Math.abs(age) > TOLERANCE_S) {
      return false;
    }
    byte[] right = ("v1," + signature(key, id + "." + timestamp + ".", body)).getBytes();
    for (String one : signatures.split(" ")) { // several while the secret changes
      if (MessageDigest.isEqual(right, one.getBytes())) { // in constant time
        return true;
      }
    }
    return false;
  }

  private static String signature(SecretKeySpec key, String begin, byte[] body) {
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(key);
      mac.update(begin.getBytes(StandardCharsets.UTF_8));
      return Base64.getEncoder().encodeToString(mac.doFinal(body));
    } catch (GeneralSecurityException error) {
      throw new IllegalStateException(error); // every JDK has it
    }
  }
}
