"""What starts a deployment on the host itself: a push over git, or a webhook.

`install` and `service` are our side: they bring the library and a plan to the host, and tell git
and systemd of them; `here` is `inv listen`. The rest is the host's, and needs nothing installed
there: `pushed` is what git calls after a push, `listen` hears webhooks and keeps what they want in
`queue`, `deploying` has `work` deploy it.
"""
