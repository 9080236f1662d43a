package main

import (
	"log/slog"
	"time"

	"github.com/millrace/millrace/gateway"
	"github.com/millrace/millrace/internal/settings"
)

// gatewayOptions turns checked settings into the options of a gateway. The two differ in one
// thing: 0 is "no limit" in a setting and "the default" in an option.
func gatewayOptions(configured *settings.Settings, keys settings.Keys, logger *slog.Logger) gateway.Options {
	return gateway.Options{
		DisableCompression: configured.Compression == "off",

		Listen:         string(configured.Listen),
		AdminListen:    string(configured.AdminListen),
		ReusePort:      configured.ReusePort,
		Redis:          string(configured.Redis),
		ChannelPrefix:  string(configured.ChannelPrefix),
		InsecureNoAuth: configured.InsecureNoAuth,
		AllowedOrigins: texts(configured.AllowedOrigins),
		TrustedProxies: texts(configured.TrustedProxies),
		ProxyProtocol:  configured.ProxyProtocol,
		Namespaces:     configured.Namespaces,
		Personal:       configured.Personal,
		Broadcast:      configured.Broadcast,
		Loops:          max(0, int(configured.Loops)), // auto is 0
		WithoutIOURing: configured.WithoutIOURing,
		Demo:           configured.Demo,
		Logger:         logger,
		Auth: gateway.AuthOptions{
			HMACSecret:   keys.HMACSecret,
			PublicKeyPEM: keys.PublicKeyPEM,
			JWKSURL:      string(configured.AuthJWKSURL),
			Audience:     configured.AuthAudience,
			Issuer:       configured.AuthIssuer,
			UserClaim:    configured.UserClaim,
		},
		Council: configured.Council,
		Limits:  gatewayLimits(&configured.LimitSettings),
	}
}

func gatewayLimits(limits *settings.LimitSettings) gateway.Limits {
	return gateway.Limits{
		MaxConnections:           countLimit(limits.MaxConnections),
		MaxConnectionsPerUser:    countLimit(limits.MaxConnectionsPerUser),
		MaxConnectionsPerAddress: countLimit(limits.MaxConnectionsPerAddress),
		MaxSubscriptions:         countLimit(limits.MaxSubscriptions),
		MaxHeaderBytes:           countLimit(limits.MaxHeaderBytes),
		MaxMessageBytes:          countLimit(limits.MaxMessageBytes),
		MaxEventBytes:            countLimit(limits.MaxEventBytes),
		MaxQueueBytes:            countLimit(limits.MaxQueueBytes),
		MaxQueueAge:              durationLimit(limits.MaxQueueAge),
		ProgressTimeout:          durationLimit(limits.ProgressTimeout),
		MaxReplayBytes:           countLimit(limits.MaxReplayBytes),
		MaxStreamAge:             durationLimit(limits.MaxStreamAge),
		CommandsPerSecond:        countLimit(limits.CommandsPerSecond),
		AcceptRate:               countLimit(limits.AcceptRate),
		HandshakeTimeout:         durationLimit(limits.HandshakeTimeout),
		DrainTimeout:             durationLimit(limits.DrainTimeout),
	}
}

// countLimit gives the option for a number of things or bytes.
func countLimit[T settings.Count | settings.Size](limit T) int {
	switch {
	case limit == 0:
		return gateway.NoLimit
	case int(limit) == int(settings.Auto):
		return 0
	default:
		return int(limit)
	}
}

// durationLimit gives the option for a span of time.
func durationLimit(limit settings.Duration) time.Duration {
	if limit == 0 {
		return gateway.NoLimit
	}
	return time.Duration(limit)
}

// texts gives a list of any kind of text as plain strings, nil for an empty one.
func texts[T ~string](list []T) []string {
	var plain []string
	for _, text := range list {
		plain = append(plain, string(text))
	}
	return plain
}
