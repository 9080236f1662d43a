package broker_test

import (
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/millrace/millrace/broker"
	"github.com/millrace/millrace/broker/brokertest"
	"github.com/millrace/millrace/internal/redistest"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestContractMemory(t *testing.T) {
	brokertest.Run(t, func(testing.TB) brokertest.Engine {
		return brokertest.Engine{New: func(_ testing.TB, linger time.Duration) broker.Broker {
			return broker.NewMemory(broker.MemoryOptions{Linger: linger})
		}}
	})
}

func TestContractRedis(t *testing.T) {
	server := redistest.Start(t)
	brokertest.Run(t, func(testing.TB) brokertest.Engine { return redisEngine(server.URL(), "") })
}

func TestContractRedisWithPrefix(t *testing.T) {
	server := redistest.Start(t)
	brokertest.Run(t, func(testing.TB) brokertest.Engine { return redisEngine(server.URL(), `tenant[1]*\:`) })
}

func redisEngine(url, prefix string) brokertest.Engine {
	return brokertest.Engine{Shared: true, New: func(t testing.TB, linger time.Duration) broker.Broker {
		t.Helper()
		made, err := broker.NewRedis(broker.RedisOptions{URL: url, ChannelPrefix: prefix, Linger: linger, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}}
}
