// Command gorilla is a Go client of a path stream, as gorilla/websocket (the library of the fourth system) has one
// written: a loop that reads messages, while the library answers pings and closes by itself. It speaks the lines of
// client.mjs, as far as such a client has them.
//
//	gorilla ws://HOST:PORT/PATH
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

var output sync.Mutex

func tell(line map[string]any) {
	output.Lock()
	defer output.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		log.Fatal(err)
	}
}

// obey does what standard input says. The library allows one goroutine to write, which is this one; pongs and
// closes are control messages, which every goroutine may write.
func obey(conn *websocket.Conn) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var told struct {
			Send       *string
			SendBinary *string
			Ping       *string
			Close      *int
		}
		if err := json.Unmarshal(lines.Bytes(), &told); err != nil {
			log.Fatal(err)
		}
		var err error
		switch {
		case told.Send != nil:
			err = conn.WriteMessage(websocket.TextMessage, []byte(*told.Send))
		case told.SendBinary != nil:
			var data []byte
			if data, err = hex.DecodeString(*told.SendBinary); err == nil {
				err = conn.WriteMessage(websocket.BinaryMessage, data)
			}
		case told.Ping != nil:
			var data []byte
			if data, err = hex.DecodeString(*told.Ping); err == nil {
				err = conn.WriteControl(websocket.PingMessage, data, time.Now().Add(10*time.Second))
			}
		case told.Close != nil:
			message := websocket.FormatCloseMessage(*told.Close, "")
			err = conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(10*time.Second))
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}

func main() {
	dialer := *websocket.DefaultDialer
	// What it sends is compressed where the node agrees.
	dialer.EnableCompression = true
	conn, _, err := dialer.Dial(os.Args[1], nil)
	if err != nil {
		log.Fatal("dial:", err)
	}
	defer conn.Close()
	answer := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		tell(map[string]any{"ping": hex.EncodeToString([]byte(data))})
		return answer(data)
	})
	conn.SetPongHandler(func(data string) error {
		tell(map[string]any{"pong": hex.EncodeToString([]byte(data))})
		return nil
	})
	tell(map[string]any{"open": true})
	go obey(conn)
	for {
		kind, message, err := conn.ReadMessage()
		if err != nil {
			var closed *websocket.CloseError
			if !errors.As(err, &closed) {
				log.Fatal("read:", err)
			}
			tell(map[string]any{"closed": map[string]any{"code": closed.Code, "reason": closed.Text}})
			return
		}
		if kind == websocket.BinaryMessage {
			tell(map[string]any{"binary": hex.EncodeToString(message)})
		} else {
			tell(map[string]any{"text": string(message)})
		}
	}
}
