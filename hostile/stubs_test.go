package hostile

var commandCases, authenticationCases, authorisationCases, limitCases, redisCases, resourceCases, shutdownCases []abuse
