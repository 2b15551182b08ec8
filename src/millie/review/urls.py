"""Which address leads to which view."""

from django.contrib.auth import views as auth
from django.urls import include, path

from millie.review.users.logins import LoginForm

login = auth.LoginView.as_view(template_name="review/login.html", authentication_form=LoginForm)
urlpatterns = [
    path("login", login, name="login"),
    path("logout", auth.LogoutView.as_view(), name="logout"),
    path("", include("millie.review.pages.urls")),
]
