package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// redisTimeout bounds one question to a Redis.
const redisTimeout = 10 * time.Second

// askRedis sends one command, in words with spaces between, and gives the answer to it: a line, or
// a bulk string. It is no way to measure anything.
func askRedis(address, command string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, redisTimeout)
	if err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(redisTimeout))
	if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	answer := bufio.NewReader(conn)
	line, err := answer.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("ask redis %s: %w", command, err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[:min(1, len(line))] {
	case "+", ":":
		return line[1:], nil
	case "$":
		length, err := strconv.Atoi(line[1:])
		if err != nil || length < 0 {
			return "", fmt.Errorf("ask redis %s: it answers %q", command, line)
		}
		text := make([]byte, length)
		if _, err := io.ReadFull(answer, text); err != nil {
			return "", fmt.Errorf("ask redis %s: %w", command, err)
		}
		return string(text), nil
	}
	return "", fmt.Errorf("ask redis %s: it answers %q", command, line)
}

// redisFigure gives a number that INFO tells.
func redisFigure(address, section, name string) (float64, error) {
	text, err := askRedis(address, "INFO "+section)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("this redis tells no %s", name)
}
