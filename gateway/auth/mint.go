package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// MintClaims says what a minted token claims.
type MintClaims struct {
	// User is the user's id; 1 to [UserBytesMax] bytes.
	User string
	// UserClaim names the claim that takes it. Default "sub".
	UserClaim string
	// Channels and Publish are patterns (see [ParsePatterns]).
	Channels, Publish []string
	Admin             bool
	// TTL is how long the token is good, in whole seconds; zero: for ever.
	TTL time.Duration
	// Audience and Issuer, where set, become aud and iss.
	Audience, Issuer string
	// Now is when the token is issued. Zero: time.Now().
	Now time.Time
}

// Mint signs a token with HS256, for development and for tests; secret is an HMAC secret of at
// least [SecretBytesMin] bytes. The error says which claim a Verifier would refuse.
func Mint(secret []byte, claims MintClaims) (string, error) {
	signer, err := newSecretKey(secret)
	if err != nil {
		return "", err
	}
	if err := checkUser(claims.User); err != nil {
		return "", err
	}
	if claims.TTL < 0 {
		return "", errors.New("the time to live is negative")
	}
	content := jwt.MapClaims{}
	for name, list := range map[string][]string{"channels": claims.Channels, "publish": claims.Publish} {
		if _, err := ParsePatterns(list); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if len(list) > 0 {
			content[name] = list
		}
	}
	issued := claims.Now
	if issued.IsZero() {
		issued = time.Now()
	}
	content["iat"] = issued.Unix()
	if claims.TTL > 0 {
		content["exp"] = issued.Add(claims.TTL).Unix()
	}
	if claims.Admin {
		content["admin"] = true
	}
	if claims.Audience != "" {
		content["aud"] = claims.Audience
	}
	if claims.Issuer != "" {
		content["iss"] = claims.Issuer
	}
	userClaim := claims.UserClaim
	if userClaim == "" {
		userClaim = "sub"
	}
	content[userClaim] = claims.User
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, content).SignedString(signer.material)
	if err != nil {
		return "", fmt.Errorf("sign the token: %w", err)
	}
	if len(token) > TokenBytesMax {
		return "", fmt.Errorf("the token has %d bytes; at most %d are accepted: grant fewer channels, or whole types by TYPE:*", len(token), TokenBytesMax)
	}
	return token, nil
}
