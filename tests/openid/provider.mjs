// An OpenID provider (library `oidc-provider`). Arguments: CLIENT SECRET REDIRECT. Its first line of output is
// its issuer. It accepts any login without checking a password.

import http from 'node:http';
import Provider from 'oidc-provider';

const [client_id, client_secret, redirect] = process.argv.slice(2);
const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{ client_id, client_secret, redirect_uris: [redirect] }],
    claims: { openid: ['sub'], profile: ['preferred_username', 'name'], groups: ['groups'] },
    pkce: { required: () => true },
    findAccount: (_, login) => ({
      accountId: login,
      claims: () => ({
        sub: login,
        preferred_username: login,
        name: `The person ${login}`,
        groups: login === 'zoe' ? ['developers', 'others'] : [],
      }),
    }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
