// A client of soraka's Thrift service: client HOST PORT TOPIC URL
//
// Shows each call and each error, then submits a message for each line of its standard input. A
// token, if one is needed, is in SORAKA_TOKEN.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/apache/thrift/lib/go/thrift"

	soraka "soraka.example/build/gen/sorakaclient"
)

const (
	timeout  = 10 * time.Second // longer than soraka takes to say that it is unavailable
	patience = time.Minute
	hour     = int64(time.Hour / time.Millisecond)
	minute   = int64(time.Minute / time.Millisecond)
	unknown  = "01890a5d-ac96-774b-bcce-b302099a8057"
)

var ctx = context.Background()

// connection is opened when needed, and anew after it broke.
type connection struct {
	address   string
	transport thrift.TTransport
	client    *soraka.SorakaClient
}

// call asks until there is an answer. Each call carries ids, so that it is safe to repeat.
func call[T any](c *connection, ask func(*soraka.SorakaClient) (T, error)) (T, error) {
	deadline := time.Now().Add(patience)
	for pause := 100 * time.Millisecond; ; {
		answer, err := once(c, ask)
		var other thrift.TApplicationException // of another version of the IDL
		if err == nil || described(err) != "" || errors.As(err, &other) {
			return answer, err
		}
		wait := pause
		if unavailable := new(soraka.Unavailable); errors.As(err, &unavailable) {
			wait = time.Duration(unavailable.RetryAfter) * time.Millisecond
		} else {
			// what was asked may have been done, or not; a late answer must not be the next
			c.close()
			pause = min(2*pause, 2*time.Second)
		}
		if time.Now().Add(wait).After(deadline) {
			return answer, err
		}
		time.Sleep(wait)
	}
}

func once[T any](c *connection, ask func(*soraka.SorakaClient) (T, error)) (answer T, err error) {
	if err = c.open(); err != nil {
		return answer, err
	}
	return ask(c.client)
}

func (c *connection) open() error {
	if c.client != nil {
		return nil
	}
	conf := &thrift.TConfiguration{ConnectTimeout: timeout, SocketTimeout: timeout}
	c.transport = thrift.NewTFramedTransportConf(thrift.NewTSocketConf(c.address, conf), conf)
	if err := c.transport.Open(); err != nil {
		return err
	}
	c.client = soraka.NewSorakaClientFactory(c.transport, thrift.NewTBinaryProtocolFactoryConf(conf))
	if token := os.Getenv("SORAKA_TOKEN"); token != "" {
		if err := c.client.Authenticate(ctx, token); err != nil {
			c.close() // else the next call would go without it
			return err
		}
	}
	return nil
}

func (c *connection) close() {
	if c.client != nil {
		c.transport.Close()
		c.client = nil
	}
}

// described is the name of an error that stays, and its text, which for a wrong request begins with
// the field; "" for one after which the call is repeated.
func described(err error) string {
	switch e := err.(type) {
	case *soraka.InvalidRequest: // wrong, and stays wrong
		return "InvalidRequest: " + e.Em
	case *soraka.TopicNotFound: // an operator has to make the topic
		return "TopicNotFound: " + e.Em
	case *soraka.MessageNotFound: // never was, or has been forgotten
		return "MessageNotFound: " + e.Em
	case *soraka.TooLate: // called, cancelled or dead by now
		return "TooLate: " + e.Em
	case *soraka.KeyReused: // this key stands for another message
		return "KeyReused: " + e.Em
	case *soraka.NotAuthenticated: // without a token, or with a wrong one
		return "NotAuthenticated: " + e.Em
	case *soraka.NotAllowed: // the token lacks the right
		return "NotAllowed: " + e.Em
	}
	return ""
}

func main() {
	c := &connection{address: net.JoinHostPort(os.Args[1], os.Args[2])}
	defer c.close()
	topic, url := os.Args[3], os.Args[4]
	run := fmt.Sprintf("go-%d-%d", os.Getpid(), time.Now().UnixNano())
	tour(c, topic, url, run)
	lines := bufio.NewScanner(os.Stdin)
	for number := 0; lines.Scan(); number++ {
		fmt.Println(submit(c, submission(topic, url, fmt.Sprint(run, "-", number), 0, lines.Text())))
	}
}

// tour shows each call and each error.
func tour(c *connection, topic, url, run string) {
	one := submission(topic, url, run+"-one", hour, "{}")
	id := submit(c, one)
	fmt.Println("submitted", id)
	if submit(c, one) == id {
		fmt.Println("sent again, the same")
	}

	wrong := submission(topic, url, run+"-four", -1, "{}")
	batch := []*soraka.Submission{
		submission(topic, url, run+"-two", hour, "{}"),
		submission(topic, url, run+"-three", hour, "{}"),
		wrong,
	}
	results := must(call(c, func(client *soraka.SorakaClient) ([]*soraka.SubmitResult_, error) {
		return client.SubmitBatch(ctx, batch)
	}))
	fmt.Println("batch", results[0].Ec, results[1].Ec, results[2].Ec)

	fmt.Println("is", found(c, id).State)
	must(call(c, func(client *soraka.SorakaClient) (bool, error) {
		return client.AddTime(ctx, topic, id, minute, "later-"+id)
	}))
	fmt.Println("later by a minute")
	must(call(c, func(client *soraka.SorakaClient) (bool, error) {
		return client.Cancel(ctx, topic, id, "cancel-"+id)
	}))
	fmt.Println("is", found(c, id).State)

	refused(call(c, func(client *soraka.SorakaClient) (bool, error) {
		return client.AddTime(ctx, topic, id, minute, "again-"+id)
	}))
	refused(call(c, func(client *soraka.SorakaClient) (string, error) {
		return client.Submit(ctx, submission(topic, url, run+"-one", 1, "{}"))
	}))
	refused(call(c, func(client *soraka.SorakaClient) (string, error) {
		return client.Submit(ctx, wrong)
	}))
	refused(call(c, func(client *soraka.SorakaClient) (*soraka.MessageInfo, error) {
		return client.Get(ctx, unknown)
	}))
	refused(call(c, func(client *soraka.SorakaClient) (bool, error) {
		return client.Cancel(ctx, topic+".none", unknown, "none")
	}))
	fmt.Println("ready")
}

func submission(topic, url, key string, delay int64, params string) *soraka.Submission {
	return &soraka.Submission{
		TopicName:      topic,
		DelayTime:      &delay,
		Callback:       &soraka.Callback{RequestType: soraka.RequestType_POST, URL: url, Params: &params},
		IdempotencyKey: &key,
	}
}

func submit(c *connection, message *soraka.Submission) string {
	return must(call(c, func(client *soraka.SorakaClient) (string, error) {
		return client.Submit(ctx, message)
	}))
}

// found waits: just submitted, a message may not be in the store yet.
func found(c *connection, id string) *soraka.MessageInfo {
	deadline := time.Now().Add(patience)
	for {
		info, err := call(c, func(client *soraka.SorakaClient) (*soraka.MessageInfo, error) {
			return client.Get(ctx, id)
		})
		var missing *soraka.MessageNotFound
		if !errors.As(err, &missing) || time.Now().After(deadline) {
			return must(info, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func refused[T any](_ T, err error) {
	switch text := described(err); {
	case err == nil:
		fmt.Println("accepted")
	case text != "":
		fmt.Println(text)
	default:
		must(0, err)
	}
}

func must[T any](answer T, err error) T {
	if err != nil {
		text := described(err)
		if text == "" {
			text = err.Error()
		}
		fmt.Fprintln(os.Stderr, text)
		os.Exit(1)
	}
	return answer
}
