package hostile

var authenticationCases, authorisationCases, limitCases, redisCases, resourceCases, shutdownCases []abuse
