// Takes callbacks whose signatures are right: receiver PORT, the secret in SORAKA_SECRET.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	tolerance = 5 * time.Minute
	maxBody   = 1 << 20
)

func genuine(key []byte, id, timestamp, signatures string, body []byte) bool {
	seconds, err := strconv.ParseUint(timestamp, 10, 40)
	if id == "" || err != nil || time.Since(time.Unix(int64(seconds), 0)).Abs() > tolerance {
		return false
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	right := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for _, one := range strings.Split(signatures, " ") { // several while the secret changes
		if hmac.Equal(right, []byte(one)) { // in constant time
			return true
		}
	}
	return false
}

func main() {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("SORAKA_SECRET"), "whsec_"))
	if err != nil || len(key) == 0 {
		log.Fatal("SORAKA_SECRET is no secret")
	}
	var done sync.Map // a table of yours, with what the callback changes
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		id := r.Header.Get("webhook-id")
		if !genuine(key, id, r.Header.Get("webhook-timestamp"), r.Header.Get("webhook-signature"), body) {
			w.WriteHeader(http.StatusUnauthorized) // tried again later
			return
		}
		if _, again := done.LoadOrStore(id, true); !again { // it may come twice
			fmt.Printf("%s %s\n", id, body)
		}
		io.WriteString(w, `{"result": true}`)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
